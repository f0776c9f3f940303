import { ablate, hooksOf } from '../circuits/ablate.js';
import { logitDifference, type Metric, tokenProbability } from '../circuits/measure.js';
import type { Prompt } from '../prompt/prompt.js';
import type { PromptPart } from '../prompt/types.js';
import { counted } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import { type FileRecord, readRecords } from '../util/records.js';
import { writeCircuit } from './circuit-report.js';
import { defineCommand } from './command.js';
import { describeModel, withSession } from './common.js';
import { choice, text, vary } from './option.js';
import { LAYERS, MODEL_OPTIONS, OUTPUT_OPTIONS, REPORT } from './options.js';
import { notePrompt, PROMPT_OPTIONS } from './prompt-options.js';
import { inRecord, invalidRecord, recordPrompt } from './record-prompt.js';
import { requireReport } from './report-run.js';

/** `xpatch circuit ablate`: answers with one part of the model missing at a time. */
export const circuitAblate = defineCommand({
  command: 'ablate <file>',
  describe: 'Take attention, MLPs, blocks or heads out, one at a time, over a file of prompts',
  positionals: {
    file: vary(
      text('Prompts with the fields prompt, right and optionally wrong and image: .jsonl, .csv or .tsv', {
        completes: 'file',
      }),
      { required: true },
    ),
  },
  options: {
    what: vary(
      choice(
        ['attn_out', 'mlp_out', 'block', 'z'],
        'What to remove: the output of attention or MLP, both, or z, a head',
      ),
      { default: 'attn_out' },
    ),
    replacement: vary(choice(['zero', 'mean'], 'What replaces it: nothing, or its mean over all prompts'), {
      default: 'zero',
    }),
    literal: vary(PROMPT_OPTIONS.literal, { describe: 'Take control tokens in prompts, such as <s>, as text' }),
    layers: vary(LAYERS, { default: 'all' }),
    report: REPORT,
    ...MODEL_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    [
      'Lines like {"prompt": "Q:Peru\\nA:", "right": "Lima", "wrong": "Tokyo"}',
      'circuit ablate prompts.jsonl -m demo --what z',
    ],
  ],
  run: async (args, terminal) => {
    const asked: (Pick<FileRecord, 'line'> & { query: PromptPart[]; metric: Metric; hasWrong: boolean })[] = [];
    for await (const record of readRecords(args.file)) {
      const { right } = record.fields;
      const wrong = record.fields.wrong ?? '';
      if (typeof right !== 'string') throw invalidRecord(args.file, record, 'has no text named right');
      if (typeof wrong !== 'string') throw invalidRecord(args.file, record, 'has a field wrong that is no text');
      if (wrong === right) throw invalidRecord(args.file, record, 'has the right answer as the wrong one too');
      const hasWrong = wrong !== '';
      if (hasWrong !== (asked[0]?.hasWrong ?? hasWrong)) {
        const differs = `has ${hasWrong ? 'a' : 'no'} wrong answer, unlike the first`;
        throw invalidRecord(args.file, record, `${differs}: differences of logits and probabilities have no mean`);
      }
      const metric = hasWrong ? logitDifference(right, wrong) : tokenProbability(right);
      const { line } = record;
      asked.push({ line, query: recordPrompt(args.file, record, { literal: args.literal }), metric, hasWrong });
    }
    if (asked.length === 0) throw new XpatchError('DATA_INVALID', `${args.file} has no prompts. Give it some lines.`);
    await requireReport(args.report);
    await withSession(args, terminal, async (session) => {
      const { model, context, signal, track } = session;
      const items: { query: Prompt; metric: Metric }[] = [];
      for (const { line, query: parts, metric } of asked) {
        const query = await inRecord(args.file, { line }, () => model.prompt(parts, { signal }));
        await notePrompt(session, parts, query);
        items.push({ query, metric });
      }
      const { what, replacement: op } = args;
      const layers = args.layers === 'all' ? undefined : args.layers;
      const of = [];
      if (op === 'mean') {
        const captures = hooksOf(what).map((hook) => ({ hook }));
        for (const { query } of items)
          of.push(...(await context.run({ prompt: query, captures }, { signal })).captured);
      }
      const options = { op, layers, signal, onProgress: track('ablating'), ...(op === 'mean' && { of }) };
      const ablation = await ablate(context, items, what, options);
      const { ablationReport } = await import('../report/circuits.js');
      const title = `Ablation of ${what} in ${describeModel(model.identity)}`;
      const introduction = [
        `${counted(items.length, 'prompt')}; replaced by ${op === 'zero' ? 'nothing' : 'the mean over all of them'}.`,
      ];
      await writeCircuit(session, args, {
        result: { what, op, n: items.length, ...ablation },
        make: (given) => ablationReport(ablation, 'Metric', { title, introduction, ...given }),
      });
    });
  },
});
