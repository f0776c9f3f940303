import { splitTask } from '../tasks/split.js';
import { loadTask } from '../tasks/task.js';
import { counted } from '../util/counted.js';
import { writeCircuit } from './circuit-report.js';
import { defineCommand } from './command.js';
import { describeModel, requireNotAborted, withSession } from './common.js';
import { usageError } from './errors.js';
import { templateNotes, templateOf } from './experiment.js';
import { vary, whole } from './option.js';
import {
  IMAGES_ROOT,
  MODEL_OPTIONS,
  OUTPUT_FILE,
  OUTPUT_OPTIONS,
  PROMPTS,
  REPORT,
  SEED,
  SHOTS,
  SPECS,
  TASKS,
  TEMPLATE,
  TOP,
  theOne,
} from './options.js';
import { openOutput } from './output-file.js';
import { requireReport } from './report-run.js';

/** `xpatch circuit function-vector`: the heads that carry a task, and the vector of the best ones. */
export const circuitFunctionVector = defineCommand({
  command: 'function-vector',
  describe: 'Find the heads that carry a task, and make a vector of what the best ones add',
  options: {
    tasks: vary(TASKS, { describe: 'Shipped task, or a task file (.json, .jsonl, .csv)', required: true }),
    specs: vary(SPECS, { describe: 'Whether examples are shown as text or image. Defaults to text' }),
    shots: SHOTS,
    prompts: vary(PROMPTS, { describe: 'Prompts whose mean is taken', default: 10 }),
    corruptPrompts: vary(whole(1, 'Prompts with shuffled labels to measure effects on'), { default: 10 }),
    top: vary(TOP, { describe: 'How many of the best heads make up the vector', default: 10 }),
    seed: vary(SEED, { default: 1, describe: 'Seed of every draw' }),
    imagesRoot: IMAGES_ROOT,
    template: TEMPLATE,
    report: REPORT,
    output: vary(OUTPUT_FILE, { describe: 'File to write, for sweep and run', required: true }),
    ...MODEL_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    ['From text examples', 'circuit function-vector -m demo --tasks country-capital -o fv.safetensors'],
    ['What it does at each layer', 'sweep -m demo --prompt "Q:Peru\\nA:" --vector fv.safetensors'],
  ],
  run: async (args, terminal) => {
    const { seed, shots = 5, prompts, corruptPrompts: corrupt } = args;
    const named = theOne('--tasks', args.tasks) as string;
    const spec = theOne('--specs', args.specs) ?? 'text';
    if (spec !== 'text' && spec !== 'image')
      throw usageError(`--specs takes text or image, not ${JSON.stringify(spec)}.`);
    const template = templateOf(args);
    await using file = await openOutput(args.output, terminal, { ...args, inputs: [args.model, args.mmproj, named] });
    const pictures = spec === 'image';
    const task = await loadTask(named, { pictures, imagesRoot: args.imagesRoot });
    const split = splitTask(task, seed, { pictures, validation: Math.max(30, prompts, corrupt) });
    await requireReport(args.report);
    await withSession(args, terminal, async (session) => {
      const { model, context, signal, progress, track } = session;
      const [{ taskHeadEffects }, { functionVector }] = await Promise.all([
        import('../circuits/task-heads.js'),
        import('../circuits/function-vector.js'),
      ]);
      progress.update('reading prompts');
      const effects = await taskHeadEffects(context, split, {
        spec,
        shots,
        prompts,
        corrupt,
        template,
        signal,
        onProgress: track('patching heads'),
      });
      const vector = await functionVector(context, effects, args.top);
      requireNotAborted(signal);
      await vector.save(file.path);
      await file.deliver();
      const best = effects.effects.best(args.top);
      const { functionVectorReport } = await import('../report/circuits.js');
      const title = `Heads of ${task.name} in ${describeModel(model.identity)}`;
      await writeCircuit(session, args, {
        result: {
          output: args.output,
          task: { name: task.name, hash: task.hash },
          spec,
          seed,
          template: template ?? 'paper',
          plain: effects.plain,
          best,
          effects: effects.effects.heads.map((head, i) => ({ ...head, effect: effects.effects.values[i] })),
        },
        make: (given) =>
          functionVectorReport(effects, best, { title, introduction: templateNotes(template), ...given }),
      });
      if (!args.json) terminal.print(`${file.name}: function vector of ${counted(best.length, 'head')}\n`);
    });
  },
});
