import { fitTunedLens } from '../lens/fit-tuned-lens.js';
import { type LensPrompts, taskLensPrompts, textLensPrompts } from '../studies/lens-prompts.js';
import { evaluateLens } from '../studies/lens-quality.js';
import { readWhole } from '../util/read-file.js';
import { defineCommand } from './command.js';
import { describeModel, requireNotAborted, type Session, withSession } from './common.js';
import { usageError } from './errors.js';
import { type ArgumentsOf, grouped, text, vary } from './option.js';
import { MODEL_OPTIONS, OUTPUT_FILE, OUTPUT_OPTIONS, PROMPTS, REPORT, SEED } from './options.js';
import { openOutput } from './output-file.js';
import { startRun } from './report-run.js';

const OPTIONS = {
  ...grouped('Lens', {
    output: vary(OUTPUT_FILE, { required: true }),
    text: text('Fit on this text file. Defaults to prompts of the shipped tasks', { value: 'FILE', completes: 'file' }),
    prompts: vary(PROMPTS, { describe: 'Most prompts to fit on, at least 5', default: 120 }),
    seed: vary(SEED, { default: 1, describe: 'Seed of every draw' }),
    report: REPORT,
  }),
  ...MODEL_OPTIONS,
  ...OUTPUT_OPTIONS,
};
type TuneArguments = ArgumentsOf<typeof OPTIONS>;

/** `xpatch tune`: fits a tuned lens, and tests it on prompts that it was not fitted on. */
export const tune = defineCommand({
  command: 'tune',
  describe: 'Fit a tuned lens, and compare it with the plain one',
  options: OPTIONS,
  examples: [
    ['For prompts like those of the shipped tasks', 'tune -m demo -o demo-lens.safetensors'],
    ['For a text of yours', 'tune -m model.gguf --text book.txt --prompts 400 -o lens.safetensors --report tuned'],
  ],
  run: async (args, terminal) => {
    if (args.prompts < 5) throw usageError('--prompts must be a whole number from 5.');
    const inputs = [args.model, args.mmproj, args.text];
    await using file = await openOutput(args.output, terminal, { json: args.json, inputs });
    const text = args.text === undefined ? undefined : await readText(args.text);
    await withSession(args, terminal, async (session) => {
      const { model, context, signal, progress, track } = session;
      const { prompts, seed } = args;
      const title = `Tuned lens of ${describeModel(model.identity)}`;
      await using run =
        args.report === undefined
          ? undefined
          : await startRun(
              session,
              { output: args.report },
              { experiment: 'tune', title, options: { text: args.text, prompts, seed } },
            );
      const made = await makePrompts(session, args, text);
      const { fit, validation } = made;
      const lens = await fitTunedLens(context, fit, { validation, seed, signal, onProgress: track('fitting') });
      const quality = await evaluateLens(context, made.test, lens, {
        items: made.testItems,
        seed,
        signal,
        onProgress: track('testing'),
      });
      requireNotAborted(signal);
      progress.update('writing');
      await lens.save(file.path);
      await file.deliver();
      const { tunedLensFigure, tunedLensTable } = await import('../report/tuned-lens.js');
      const table = tunedLensTable(quality, lens, title);
      await run?.finish({
        title,
        introduction: [
          'A tuned lens (Belrose et al. 2023) predicts the last layer’s state from that of each layer before the model’s own head reads it.',
        ],
        blocks: [
          {
            kind: 'curves',
            name: 'kl',
            heading: 'How far each layer is from the answer',
            figure: tunedLensFigure(quality, title),
          },
          { kind: 'table', name: 'kl-per-layer', heading: 'The numbers', table },
        ],
        provenance: { ...run.provenance, seed },
      });
      progress.done();
      if (args.json) {
        const strengths = lens.translators.map(({ strength }) => strength);
        const { output, report } = args;
        terminal.printJson({ output, ...(report !== undefined && { report }), ...lens.info, strengths, quality });
      } else {
        const { tableToText } = await import('../report/tables.js');
        terminal.print(`${tableToText(table)}\n${file.name}\n${run?.summary() ?? ''}`);
      }
    });
  },
});

async function makePrompts(
  { model, signal, progress, track }: Session,
  { prompts, seed }: TuneArguments,
  text: string | undefined,
): Promise<LensPrompts> {
  progress.update('reading prompts');
  if (text !== undefined) return textLensPrompts(model, text, { prompts, seed, signal });
  return taskLensPrompts(model, { prompts, seed, signal, onProgress: track('reading prompts') });
}

/** Far more than any lens is fitted on. */
const TEXT = { what: 'the text', maxBytes: 256 << 20, pipe: true } as const;

/** @throws XpatchError FILE_NOT_FOUND, INVALID_ARGUMENT */
async function readText(path: string): Promise<string> {
  const bytes = await readWhole(path, TEXT);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw usageError(`${path} is not a text in UTF-8. Convert it, or name another file.`);
  }
}
