import { createHash } from 'node:crypto';
import { memoryStore } from '../experiment/memory-store.js';
import { loadSaved } from '../experiment/run-files.js';
import type { StudyLine } from '../experiment/types.js';
import { TunedLens } from '../lens/tuned-lens.js';
import { runStudy, type StudyEvents } from '../studies/study.js';
import { LENS, readText, type TuningPart, tuningOf } from '../studies/tuning.js';
import { listTasks } from '../tasks/task.js';
import { defineCommand } from './command.js';
import { describeModel, requireNotAborted, withSession } from './common.js';
import { usageError } from './errors.js';
import { templateOf } from './experiment.js';
import { grouped, text, vary } from './option.js';
import { MODEL_OPTIONS, OUTPUT_FILE, OUTPUT_OPTIONS, PROMPTS, REPORT, SEED, TEMPLATE } from './options.js';
import { openOutput } from './output-file.js';
import { runStudyCommand } from './report-run.js';

const OPTIONS = {
  ...grouped('Lens', {
    output: vary(OUTPUT_FILE, { required: true }),
    text: text('Fit on this text file. Defaults to prompts of the shipped tasks', { value: 'FILE', completes: 'file' }),
    prompts: vary(PROMPTS, { describe: 'Maximum number of prompts to fit on, at least 5', default: 120 }),
    seed: vary(SEED, { default: 1, describe: 'Seed of every draw' }),
    template: TEMPLATE,
    report: REPORT,
  }),
  ...MODEL_OPTIONS,
  ...OUTPUT_OPTIONS,
};

/** `xpatch tune`: fits a tuned lens, and tests it on prompts that it was not fitted on. */
export const tune = defineCommand({
  command: 'tune',
  describe: 'Fit a tuned lens, and compare it with the plain one',
  options: OPTIONS,
  examples: [
    ['For prompts like those of the shipped tasks', 'tune -m demo -o demo-lens.safetensors'],
    ['For your own text', 'tune -m model.gguf --text book.txt --prompts 400 -o lens.safetensors --report tuned'],
  ],
  run: async (args, terminal) => {
    if (args.prompts < 5) throw usageError('--prompts must be a whole number from 5.');
    if (args.text !== undefined && args.template !== undefined) throw usageError('Give either --text or --template.');
    const template = args.text === undefined ? templateOf(args) : undefined;
    const inputs = [args.model, args.mmproj, args.text];
    await using file = await openOutput(args.output, terminal, { ...args, inputs });
    const text = args.text === undefined ? undefined : await readText(args.text);
    await withSession(args, terminal, async (session) => {
      const { model, context, signal, progress } = session;
      const { prompts, seed, report } = args;
      const title = `Tuned lens of ${describeModel(model.identity)}`;
      const { tableToText } = await import('../report/tables.js');
      const { tunedLensTable, tuningOutcome } = await import('../report/tuned-lens.js');
      const units = tuningOf(text);
      const options = { text: args.text, prompts, seed, ...(template && { template }) };
      const store = memoryStore<TuningPart & StudyLine>();
      const run =
        report === undefined
          ? undefined
          : await runStudyCommand(
              session,
              { output: report },
              {
                study: 'tune',
                units,
                title,
                options,
                tasks: text === undefined ? await listTasks() : [],
                pictures: text === undefined && model.hasVision,
                inputs: text === undefined ? {} : { text: createHash('sha256').update(text).digest('hex') },
              },
            );
      const onProgress: StudyEvents<TuningPart>['onProgress'] = ({ done, total, stage }) =>
        progress.update(stage, done / total);
      const parts = run?.results ?? (await runStudy(units, context, options, { store, signal, onProgress }));
      requireNotAborted(signal);
      progress.update('writing');
      const load = (path: string) => TunedLens.load(path, model.identity);
      const fitted = run ? loadSaved(run.folder, LENS, load) : store.load(LENS, load);
      await (await fitted)?.save(file.path);
      await file.deliver();
      progress.done();
      const { lens, quality } = tuningOutcome(parts);
      if (args.json) {
        const { output } = args;
        const { info, strengths } = lens;
        terminal.printJson({ output, ...(report !== undefined && { report }), ...info, strengths, quality });
      } else {
        terminal.print(
          `${tableToText(tunedLensTable(quality, lens, title), terminal)}\n${file.name}\n${run?.summary ?? ''}`,
        );
      }
    });
  },
});
