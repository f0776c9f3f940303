import { createHash } from 'node:crypto';
import type { ChatTemplate } from '../chat/chat-template.js';
import type { CorpusPositions } from '../corpus/corpus-file.js';
import type { HookName } from '../hooks/types.js';
import type { PicturePositions, PromptPart, TextPositions } from '../prompt/types.js';
import { tableToText } from '../report/tables.js';
import { counted } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import { hashInto } from '../util/files.js';
import { readRecords } from '../util/records.js';
import { describeModel, type Session, withSession } from './common.js';
import { usageError } from './errors.js';
import { type ArgumentsOf, grouped, text, vary, whole } from './option.js';
import {
  CHAT,
  type ModelArguments,
  type OutputArguments,
  parsePositions,
  placesOf,
  REPORT,
  TEMPLATE,
  unescapeText,
} from './options.js';
import { requireOutside } from './output-file.js';
import { notePrompt } from './prompt-options.js';
import { inRecord, recordPrompt, takesFields } from './record-prompt.js';
import { requireReport, startRun } from './report-run.js';
import type { Terminal } from './terminal.js';

export const CORPUS_OPTIONS = grouped('Many prompts', {
  prompts: text('Instead of a prompt: a file of them, .jsonl, .csv, .tsv, or lines of text', {
    value: 'FILE',
    completes: 'file',
  }),
  template: vary(TEMPLATE, {
    describe: 'How a line\'s fields make a prompt: "Q:{input}\\nA:"; <mark:NAME> marks a position',
  }),
  chat: vary(CHAT, { describe: "Ask each prompt in the model's chat template" }),
  generate: vary(whole(0, 'Tokens to generate after each prompt'), { default: 0 }),
  report: vary(REPORT, { describe: 'Write a report on the states into this folder' }),
  label: text('In the report: a field, such as continent, that a linear probe reads at every layer', {
    value: 'FIELD',
  }),
});

/** Positions that only a file of prompts can have. */
export type ManyPositions = (typeof OF_MANY)[number];
const OF_MANY = ['marks', 'mean', 'generated'] as const;
export const isOfMany = (given: unknown): given is ManyPositions => OF_MANY.some((one) => one === given);

/** Positions of one prompt, or of each of many. */
export function parseCapturePositions(given: string, option: string): 'all' | 'last' | ManyPositions | number[] {
  return isOfMany(given) ? given : parsePositions(given, option);
}

/** The arguments of `capture` that a file of prompts needs. */
export type CorpusArguments = ModelArguments &
  OutputArguments &
  Omit<ArgumentsOf<typeof CORPUS_OPTIONS>, 'prompts'> & {
    prompts: string;
    at?: PicturePositions | TextPositions | undefined;
    layers: 'all' | number[];
    positions?: ReturnType<typeof parseCapturePositions> | undefined;
    hook: HookName[];
    output: string;
    escape: boolean;
    bos: boolean;
    literal: boolean;
  };

/** `xpatch capture --prompts`: states of many prompts into a folder. */
export async function captureMany(args: CorpusArguments, terminal: Terminal): Promise<void> {
  const positions = positionsOf(args);
  const template = templateOf(args);
  if (args.label !== undefined && args.report === undefined) throw usageError('--label is read in a --report FOLDER.');
  const total = await countRecords(args.prompts, args.label, terminal.signal);
  await requireOutside(args.report, args.output);
  await requireReport(args.report);
  const hash = createHash('sha256');
  await hashInto(hash, args.prompts, terminal.signal);
  const source = {
    prompts: hash.digest('hex'),
    // An object, as a written template may be any text.
    template: args.chat ? { chat: true } : (template ?? 'none'),
    bos: args.bos,
    literal: args.literal,
  };
  terminal.explainInterrupt(`Complete shards stay in ${args.output}; the same command resumes from them.`);
  await withSession(args, terminal, async (session) => {
    const { model, context, signal, progress, track } = session;
    const [{ captureCorpus }, { ChatTemplate }] = await Promise.all([
      import('../corpus/capture-corpus.js'),
      import('../chat/chat-template.js'),
    ]);
    const chat = args.chat ? ChatTemplate.of(model) : undefined;
    const show = track('capturing');
    const built = async function* () {
      for await (const record of readRecords(args.prompts, { pipe: false, signal })) {
        const { prompt: _, ...fields } = record.fields;
        const parts = recordPrompt(args.prompts, record, { template, literal: args.literal });
        const prompt = await inRecord(args.prompts, record, async () => {
          const prompt = await model.prompt(chat ? asked(chat, parts) : parts, { signal, bos: args.bos });
          if (typeof positions === 'object') prompt.positions(positions); // refused where the record is known
          return prompt;
        });
        if (!chat) await notePrompt({ model, progress }, parts, prompt);
        yield { prompt, fields };
      }
    };
    const manifest = await captureCorpus(context, built(), args.output, {
      hooks: args.hook,
      layers: args.layers,
      positions,
      generate: args.generate,
      source,
      signal,
      onProgress: ({ prompts }) => show({ done: prompts, total }),
    });
    const report = args.report === undefined ? undefined : await reportCorpus(session, args, args.report);
    progress.done();
    const rows = manifest.shards.reduce((n, shard) => n + shard.rows, 0);
    if (args.json) {
      const { hooks, shards } = manifest;
      terminal.printJson({
        output: args.output,
        prompts: total,
        rows,
        hooks,
        layers: manifest.layers,
        shards,
        model: model.identity,
        ...(report && { report: args.report, summary: report.summary }),
      });
      return;
    }
    const what = `${counted(rows, 'state')} of ${args.hook.join(', ')} at ${counted(manifest.layers.length, 'layer')}`;
    terminal.print(`${args.output}: ${counted(total, 'prompt')}, ${what} of ${describeModel(model.identity)}\n`);
    if (report) terminal.print(report.text);
  });
}

/** The page of a corpus that is complete. */
async function reportCorpus(session: Session, { output, label }: CorpusArguments, folder: string) {
  const { model, signal, track } = session;
  const [{ openCorpus }, { summariseCorpus }, { corpusReport, layersTable }] = await Promise.all([
    import('../corpus/corpus.js'),
    import('../studies/corpus-summary.js'),
    import('../report/corpus.js'),
  ]);
  const corpus = await openCorpus(output);
  const found = await summariseCorpus(corpus, { label, signal, onProgress: track('summarising') });
  const title = `States of ${counted(corpus.length, 'prompt')} in ${describeModel(model.identity)}`;
  const { model: _, shards: __, ...request } = corpus.manifest;
  const run = await startRun(
    session,
    { output: folder },
    { experiment: 'corpus', title, options: { ...request, label } },
  );
  await run.finish(corpusReport(corpus, found, { title, provenance: run.provenance }));
  const hooks = found.hooks.map(({ hook, width, layers }) => ({
    hook,
    width,
    layers: layers.map(({ pca: _, ...numbers }) => numbers),
  }));
  const summary = { label: found.label, states: found.sample.length, hooks };
  return { summary, text: `${tableToText(layersTable(found), session.terminal)}\n${run.summary()}` };
}

/** The template as it was written; undefined for the prompts as they are. */
function templateOf(args: CorpusArguments): string | undefined {
  const { template } = args;
  if (template === undefined) return undefined;
  if (args.chat) throw usageError('Give either --template or --chat.');
  const written = args.escape ? unescapeText(template) : template;
  if (takesFields(written)) return written;
  // Among them `paper` and `chat`, which --template takes elsewhere: they would be the prompt of every line.
  const problem = `--template ${JSON.stringify(template)} has no field of a line such as {input}, and no <image>`;
  const wayOut = `Write one, such as "Q:{input}\\nA:", or give --chat for the model's chat template.`;
  throw usageError(`With --prompts, ${problem}. ${wayOut}`);
}

function positionsOf(args: CorpusArguments): CorpusPositions {
  const positions = placesOf(args, 'last');
  if (Array.isArray(positions)) {
    throw usageError(
      'With --prompts, --positions is last, all, marks, mean or generated, or --at names a text of each prompt.',
    );
  }
  if (positions === 'generated' && args.generate === 0) throw usageError('--positions generated needs --generate N.');
  return positions;
}

/** All records, checked before the model is loaded: a label that no probe can read is refused now. */
async function countRecords(path: string, label: string | undefined, signal: AbortSignal): Promise<number> {
  let n = 0;
  const records = async function* () {
    for await (const { fields } of readRecords(path, { pipe: false, signal })) {
      const { prompt: _, ...others } = fields;
      yield { index: n++, fields: others };
    }
    if (n === 0) throw new XpatchError('DATA_INVALID', `${path} has no prompts. Add some lines.`);
  };
  if (label === undefined) for await (const _ of records());
  else await (await import('../studies/corpus-summary.js')).labelledPrompts(records(), label);
  return n;
}

/** The chat template takes texts of messages as literal by itself. */
function asked(chat: ChatTemplate, parts: readonly PromptPart[]): PromptPart[] {
  const said = parts.map((part) => (typeof part === 'object' && 'literal' in part ? part.literal : part));
  return chat.render([{ role: 'user', content: said as never }]) as PromptPart[];
}
