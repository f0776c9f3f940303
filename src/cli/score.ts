import { dirname, join, resolve } from 'node:path';
import type { OptionScore, OptionsToScore } from '../experiment/score-options.js';
import type { PromptPart } from '../prompt/types.js';
import type { ScoredItem } from '../report/scores.js';
import { wilsonInterval } from '../stats/statistics.js';
import type { PromptFormat } from '../tasks/prompt-format.js';
import { counted } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import { writeFileAtomic } from '../util/files.js';
import { type FileRecord, readRecords } from '../util/records.js';
import { defineCommand } from './command.js';
import { describeModel, requireNotAborted, withSession } from './common.js';
import { templateOf } from './experiment.js';
import { type ArgumentsOf, choice, text, vary } from './option.js';
import { MODEL_OPTIONS, OUTPUT_FILE, OUTPUT_OPTIONS, PATCH_OPTIONS, placesOf, REPORT, TEMPLATE } from './options.js';
import { openOutput } from './output-file.js';
import { notePrompt, PROMPT_OPTIONS } from './prompt-options.js';
import { inRecord, invalidRecord, listOf, recordPrompt, requirePictures } from './record-prompt.js';
import { requireReport, startRun } from './report-run.js';
import { layersFor, namedVector, requireFit, requireWholePatch, vectorRecord } from './vector-file.js';

const OPTIONS = {
  template: vary(TEMPLATE, {
    describe:
      "For items with an input: paper, chat, or a text with {input} and {output}. Defaults to the model's, else paper",
  }),
  literal: vary(PROMPT_OPTIONS.literal, { describe: 'Take control tokens in prompts, such as <s>, as text' }),
  normalise: vary(
    choice(['none', 'token'], 'How the best option is chosen: by the sum over its tokens, or their mean'),
    { default: 'none' },
  ),
  output: vary(OUTPUT_FILE, { describe: 'Write every score: .jsonl, or .csv with one option per line' }),
  report: REPORT,
  ...PATCH_OPTIONS,
  vector: vary(PATCH_OPTIONS.vector, { describe: 'Vector to patch into each prompt; needs --layers' }),
  layers: vary(PATCH_OPTIONS.layers, { describe: 'Blocks whose output is patched, each with its row of the vector' }),
  ...MODEL_OPTIONS,
  ...OUTPUT_OPTIONS,
};
type ScoreArguments = ArgumentsOf<typeof OPTIONS> & { readonly file: string };

/** Prompts in one pass. */
const BATCH = 8;

/** `xpatch score`: log-likelihoods of given options. */
export const score = defineCommand({
  command: 'score <file>',
  describe: 'Log-likelihood of given options: which one best follows a prompt',
  positionals: {
    file: vary(text('Items: .jsonl, .csv or .tsv, see docs/cli.md', { completes: 'file' }), { required: true }),
  },
  options: OPTIONS,
  examples: [
    [
      'Lines like {"prompt": "The sky is", "options": [" blue", " green"], "answer": " blue"}',
      'score items.jsonl -m demo',
    ],
    ['Questions in your own template', 'score items.csv -m demo --template "Q:{input}\\nA:{output}" -o scores.csv'],
    ['With a task vector', 'score flags.jsonl -m demo --vector capital.safetensors --layers 2'],
  ],
  run: async (args, terminal) => {
    requireWholePatch(args);
    const template = templateOf(args);
    const records: FileRecord[] = [];
    for await (const record of readRecords(args.file)) records.push(record);
    if (records.length === 0) throw new XpatchError('DATA_INVALID', `${args.file} has no items. Add some lines.`);
    const inputs = [args.model, args.mmproj, args.file, ...(args.vector ?? [])];
    await using file =
      args.output === undefined ? undefined : await openOutput(args.output, terminal, { ...args, inputs });
    await requireReport(args.report);
    const patch = await namedVector(args);
    await withSession(args, terminal, async (session) => {
      const { model, context, signal, progress, track } = session;
      const vectorModel = patch && requireFit(patch, model.identity);
      for (const note of patch?.notes ?? []) progress.noteOnce(note);
      const { op, strength } = args;
      const positions = placesOf(args, undefined);
      const layers = patch ? layersFor(patch, args.layers ?? 'all') : [];
      const interventions = patch ? [patch.vector.at(layers, { op, strength, positions })] : [];
      const { promptFormat } = await import('../tasks/model-format.js');
      const format = await promptFormat(model, template);
      const items = records.map((record) => ({ line: record.line, ...readItem(record, args, format) }));
      await requirePictures(args.file, items, { signal, onProgress: track('reading pictures') });
      const done: ScoredItem[] = [];
      const show = track('scoring');
      for (let from = 0; from < items.length; from += BATCH) {
        const some = items.slice(from, from + BATCH);
        const queries = [];
        for (const item of some) {
          const { parts, options, format } = item;
          const prompt = await inRecord(args.file, item, () => model.prompt(parts, { signal }));
          await notePrompt({ model, progress }, parts, prompt);
          queries.push({ query: { prompt, interventions }, options, format });
        }
        const { scoreOptions } = await import('../experiment/score-options.js');
        const scores = await scoreOptions(context, queries, { signal });
        done.push(...some.map((item, i) => scored(item, scores[i] as OptionScore[], args.normalise)));
        show({ done: done.length, total: items.length });
      }
      requireNotAborted(signal);
      if (file) {
        await writeFileAtomic(file.path, args.output?.endsWith('.csv') ? await csvOf(done) : jsonLines(done));
        await file.deliver();
      }
      const asked = done.filter(({ right }) => right !== undefined);
      const right = asked.filter((item) => item.right).length;
      const accuracy = asked.length ? { right, n: asked.length, ...wilsonInterval(right, asked.length) } : undefined;
      const share = accuracy && shareText(accuracy);
      const { report, normalise } = args;
      if (report !== undefined) {
        const title = `Scores of options by ${describeModel(model.identity)}`;
        const about = { file: args.file, items: done.length, normalise, template: template ?? 'paper', layers };
        const run = await startRun(session, { output: report }, { experiment: 'score', title, options: about });
        const { scoresReport } = await import('../report/scores.js');
        const { provenance } = run;
        const worth = normalise === 'token' ? 'perToken' : 'logLikelihood';
        const introduction = share === undefined ? [] : [`${share}.`];
        await run.finish(scoresReport(done, worth, { title, introduction, headline: share, provenance }));
      }
      progress.done();
      if (args.json) {
        terminal.printJson({
          items: done,
          normalise: args.normalise,
          model: model.identity,
          ...(accuracy && { accuracy }),
          ...(patch && { patch: { vector: vectorRecord(patch), vectorModel, layers } }),
          ...(args.output !== undefined && { output: args.output }),
          ...(report !== undefined && { report }),
        });
        return;
      }
      if (!file) terminal.print(done.map(lineText).join(''));
      if (share !== undefined) terminal.print(`${share}\n`);
      if (file) terminal.print(`${file.name}: ${counted(done.length, 'item')}\n`);
      if (report !== undefined) terminal.print(`Report: ${join(report, 'report.html')}\n`);
    });
  },
});

function shareText({ right, n, low, high }: { right: number; n: number; low: number; high: number }): string {
  return `${right} of ${n} right: ${(right / n).toFixed(2)} (95 % ${low.toFixed(2)} to ${high.toFixed(2)})`;
}

interface Item extends Pick<OptionsToScore, 'options'> {
  readonly parts: PromptPart[];
  readonly answers?: readonly string[];
  readonly format?: PromptFormat;
}

/** What a line asks. `prompt` is written as it is; `input` and `image` go into the template. */
function readItem(record: FileRecord, args: ScoreArguments, format: PromptFormat): Item {
  const { fields } = record;
  const invalid = (problem: string) => invalidRecord(args.file, record, problem);
  const { prompt, input } = fields;
  const options = listOf(args.file, record, 'options');
  if (options.length === 0) throw invalid('has no options');
  if (options.includes('')) throw invalid('has an empty option');
  const twice = options.find((option, i) => options.indexOf(option) < i);
  if (twice !== undefined) throw invalid(`has the option ${JSON.stringify(twice)} twice`);
  const answers = listOf(args.file, record, 'answer');
  const foreign = answers.find((one) => !options.includes(one));
  if (foreign !== undefined) throw invalid(`has the answer ${JSON.stringify(foreign)}, which is not among its options`);
  const right = answers.length > 0 && { answers };
  if (typeof prompt === 'string') {
    if (args.template !== undefined)
      throw invalid('has a prompt, which needs no --template: leave that out, or rename the field to input');
    return { parts: recordPrompt(args.file, record, { literal: args.literal }), options, ...right };
  }
  const [image, ...more] = listOf(args.file, record, 'image');
  if (more.length > 0) throw invalid(`has ${more.length + 1} pictures, and a template has a place for one`);
  const picture = image === undefined ? undefined : resolve(dirname(args.file), image);
  if (typeof input !== 'string' && picture === undefined)
    throw invalid('has neither a prompt, nor an input, nor an image');
  const query = { input: String(input ?? ''), output: '', ...(picture !== undefined && { image: picture }) };
  return { parts: format.write({ query, queryModality: picture ? 'image' : 'text' }), options, format, ...right };
}

function scored(
  { line, answers }: Item & { line: number },
  options: readonly OptionScore[],
  by: 'none' | 'token',
): ScoredItem {
  const worth = ({ logLikelihood, perToken }: OptionScore) => (by === 'token' ? perToken : logLikelihood);
  const { option: best } = options.reduce((a, b) => (worth(b) > worth(a) ? b : a));
  return { line, best, ...(answers && { answers, right: answers.includes(best) }), options };
}

const jsonLines = (items: readonly ScoredItem[]): string => items.map((item) => `${JSON.stringify(item)}\n`).join('');

async function csvOf(items: readonly ScoredItem[]): Promise<string> {
  const { csvLine } = await import('../report/tables.js');
  const rows = items.flatMap(({ line, best, answers, options }) =>
    options.map(({ option, tokens, logLikelihood, perToken }) => [
      line,
      option,
      tokens.length,
      logLikelihood,
      perToken,
      String(option === best),
      answers ? String(answers.includes(option)) : '',
    ]),
  );
  return [['line', 'option', 'tokens', 'log_likelihood', 'per_token', 'best', 'right'], ...rows].map(csvLine).join('');
}

function lineText({ line, best, right, options }: ScoredItem): string {
  const mark = right === undefined ? '' : right ? '  right' : '  wrong';
  const all = options.map(({ option, logLikelihood }) => `${JSON.stringify(option)} ${logLikelihood.toFixed(2)}`);
  return `${line}  ${JSON.stringify(best)}${mark}  (${all.join(', ')})\n`;
}
