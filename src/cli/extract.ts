import type { TaskSpec } from '../tasks/prompts.js';
import { splitTask } from '../tasks/split.js';
import { isTaskFile, loadTask, type Task } from '../tasks/task.js';
import { counted, plural } from '../util/counted.js';
import { extractTaskVector } from '../vectors/extract.js';
import { defineCommand } from './command.js';
import { describeModel, requireNotAborted, withSession } from './common.js';
import { usageError } from './errors.js';
import { parseNames, templateOf } from './experiment.js';
import { type ArgumentsOf, choice, grouped, vary } from './option.js';
import {
  IMAGES_ROOT,
  INSTRUCTION,
  MODEL_OPTIONS,
  OUTPUT_FILE,
  OUTPUT_OPTIONS,
  PROMPTS,
  SEEDS,
  SHOTS,
  SPECS,
  TASKS,
  TEMPLATE,
  theOne,
} from './options.js';
import { openOutput } from './output-file.js';

const OPTIONS = {
  ...grouped('Task', {
    tasks: vary(TASKS, {
      describe: 'Shipped task, or a task file (.json, .jsonl, .csv)',
      value: 'TASK',
      required: true,
    }),
    specs: vary(SPECS, { describe: 'How the model is shown the task: text, image or instruction', required: true }),
    shots: SHOTS,
    prompts: vary(PROMPTS, { describe: 'Prompts to average. Defaults to 30' }),
    seeds: vary(SEEDS, { describe: 'Seed of the validation items and the examples. Defaults to 1' }),
    readPosition: choice(
      ['last-example', 'dummy-query'],
      'Which A: is read: before the last answer, or in a query after it. Defaults to last-example',
    ),
    imagesRoot: IMAGES_ROOT,
    template: TEMPLATE,
    instruction: vary(INSTRUCTION, { describe: 'Instruction for a task file, ending in a colon' }),
  }),
  output: vary(OUTPUT_FILE, { required: true }),
  ...MODEL_OPTIONS,
  ...OUTPUT_OPTIONS,
};
type ExtractArguments = ArgumentsOf<typeof OPTIONS>;

const KINDS: readonly TaskSpec[] = ['text', 'image', 'instruction'];

/** The paper's number of validation items; prompts draw their examples from them. */
const VALIDATION_ITEMS = 30;

/** `xpatch extract`: a task vector into a safetensors file. */
export const extract = defineCommand({
  command: 'extract',
  describe: 'Make a task vector from text examples, image examples or an instruction',
  options: OPTIONS,
  examples: [
    ['From 30 prompts of text', 'extract -m demo --tasks country-capital --specs text -o capital.safetensors'],
    ['From the instruction', 'extract -m demo --tasks country-capital --specs instruction -o i.safetensors'],
    ['Your own pictures', 'extract -m vlm.gguf --mmproj p.gguf --tasks logos.json --specs image -o l.safetensors'],
  ],
  run: async (args, terminal) => {
    const source = theOne('--tasks', args.tasks) as string;
    const spec = theOne('--specs', parseNames('specs', args.specs, KINDS)) as TaskSpec;
    const seed = theOne('--seeds', args.seeds) ?? 1;
    checkTaskArguments(args, source, spec);
    const template = templateOf(args);
    const inputs = [args.model, args.mmproj, source];
    await using output = await openOutput(args.output, terminal, { json: args.json, inputs });
    const { prompts = VALIDATION_ITEMS } = args;
    const pictures = spec === 'image';
    const task = await loadTask(source, { pictures, imagesRoot: args.imagesRoot, instruction: args.instruction });
    const split = splitTask(task, seed, {
      pictures,
      validation: spec === 'instruction' ? 0 : validationItems(task, prompts),
    });
    await withSession(args, terminal, async ({ model, context, signal, progress, track }) => {
      const readingPrompts = track(pictures ? 'encoding pictures' : 'reading prompts');
      const decoding = track('decoding');
      const vector = await extractTaskVector(context, split, {
        spec,
        shots: args.shots,
        prompts: spec === 'instruction' ? undefined : prompts,
        readPosition: args.readPosition,
        template,
        signal,
        onProgress: (p) => (p.stage === 'prompts' ? readingPrompts(p) : decoding(p)),
      });
      requireNotAborted(signal);
      await vector.save(output.path);
      await output.deliver();
      progress.done();
      const { layers, readPosition, origin } = vector.info;
      const { shots, prompts: records } = origin as Extract<typeof origin, { op: 'prompts' }>;
      const shape = [layers.length, model.identity.nEmbd];
      if (args.json) {
        terminal.printJson({
          output: args.output,
          task: { name: task.name, hash: task.hash },
          spec,
          shots,
          template: template ?? 'paper',
          prompts: records.length,
          seed,
          readPosition,
          shape,
          norms: vector.norms(),
          model: model.identity,
        });
      } else {
        const made =
          spec === 'instruction'
            ? 'the instruction'
            : `${records.length} ${spec} ${plural(records.length, 'prompt')} of ${counted(shots, 'shot')}, seed ${seed}`;
        const what = `${task.name} from ${made}, read at ${readPosition}, of ${describeModel(model.identity)}`;
        terminal.print(`${output.name}: task_vector [${shape.join(', ')}] (${what})\n`);
      }
    });
  },
});

/** The paper's 30; fewer only if the task is smaller and fewer prompts are asked for. */
function validationItems(task: Task, prompts: number): number {
  const distinct = new Set(task.items.map((item) => item.input)).size;
  return Math.max(prompts, Math.min(VALIDATION_ITEMS, distinct));
}

/** An option that would have no effect is refused. */
function checkTaskArguments(args: ExtractArguments, source: string, spec: TaskSpec): void {
  const refuse = (name: string, value: unknown, why: string) => {
    if (value !== undefined) throw usageError(`--${name} has no effect here: ${why}. Leave it out.`);
  };
  if (spec === 'instruction') {
    for (const [name, value] of [
      ['shots', args.shots],
      ['prompts', args.prompts],
      ['read-position', args.readPosition],
    ] as const) {
      refuse(name, value, 'an instruction is a single prompt without examples');
    }
  } else {
    refuse('instruction', args.instruction, `--specs ${spec} shows examples only`);
  }
  if (spec !== 'image') refuse('images-root', args.imagesRoot, `--specs ${spec} shows no pictures`);
  if (!isTaskFile(source)) {
    refuse('images-root', args.imagesRoot, 'a shipped task has its own pictures');
    refuse('instruction', args.instruction, 'a shipped task has its own instruction');
  }
}
