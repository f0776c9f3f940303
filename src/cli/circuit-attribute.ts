import { attributeLogits } from '../circuits/attribution.js';
import { BY_HEAD, METRIC_OPTIONS, metricOf } from './circuit-options.js';
import { writeCircuit } from './circuit-report.js';
import { defineCommand } from './command.js';
import { describeModel, withoutFlash, withSession } from './common.js';
import { usageError } from './errors.js';
import { flag, vary } from './option.js';
import { MODEL_OPTIONS, OUTPUT_OPTIONS, REPORT } from './options.js';
import { PROMPT_OPTIONS, promptParts, readPrompt } from './prompt-options.js';
import { requireReport } from './report-run.js';

/** `xpatch circuit attribute`: what each part of the model adds to a logit difference. */
export const circuitAttribute = defineCommand({
  command: 'attribute',
  describe: 'Direct logit attribution: what each layer or head adds to the answer',
  options: {
    ...PROMPT_OPTIONS,
    ...METRIC_OPTIONS,
    wrong: vary(METRIC_OPTIONS.wrong, {
      describe: 'Token of a wrong answer: the parts are of the difference of the two logits',
    }),
    byHead: vary(BY_HEAD, { describe: 'Attention by head' }),
    byPosition: flag('Attention by the position that it reads'),
    report: REPORT,
    ...MODEL_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    [
      'By the position that attention reads',
      'circuit attribute -m demo --prompt "Q:Japan\\nA:Tokyo\\n\\nQ:Peru\\nA:" --right Lima --wrong Havana --by-position',
    ],
    [
      'By head',
      'circuit attribute -m demo --prompt "Q:Japan\\nA:Tokyo\\n\\nQ:Peru\\nA:" --right Lima --wrong Havana --by-head',
    ],
  ],
  run: async (args, terminal) => {
    const { name } = metricOf(args);
    const { right, wrong, byHead, byPosition } = args;
    if (byHead && byPosition) throw usageError('Give either --by-head or --by-position.');
    if (right === undefined || wrong === undefined)
      throw usageError('Attribution needs a difference of two logits: give --wrong too.');
    const parts = await promptParts(args, terminal);
    await requireReport(args.report);
    await withSession(withoutFlash(args, byPosition), terminal, async (session) => {
      const { model, context, signal } = session;
      const prompt = await readPrompt(session, args, parts);
      session.progress.update('decoding');
      const attribution = await attributeLogits(context, prompt, {
        right,
        wrong,
        by: byHead ? 'head' : byPosition ? 'position' : 'layer',
        signal,
      });
      const { attributionReport } = await import('../report/circuits.js');
      const inputs = [...prompt.tokens].map((token) => (token < 0 ? null : model.detokenize([token])));
      const title = `Direct logit attribution in ${describeModel(model.identity)}`;
      await writeCircuit(session, args, {
        result: { ...attribution, prompt: prompt.record() },
        make: (given) => attributionReport(attribution, inputs, name, { title, introduction: [], ...given }),
      });
    });
  },
});
