import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { scoreOptions } from '../../src/experiment/score-options.js';
import type { Edge, Intervention } from '../../src/hooks/types.js';
import type { Context } from '../../src/model/context.js';
import type { HiddenStates } from '../../src/model/hidden-states.js';
import { logSumExp } from '../../src/model/tracked.js';
import type { Prompt } from '../../src/prompt/prompt.js';
import { sweepLayers } from '../../src/vectors/sweep.js';
import { TaskVector } from '../../src/vectors/task-vector.js';
import { expectError } from '../unit/helpers.js';
import { load } from './helpers.js';

const QUERY = 'The capital of Peru:';
const OPTIONS = ['Lima', 'Buenos Aires', 'Port of Spain'];
const LAYERS = [1];

type Edits = { interventions?: Intervention[]; edges?: Edge[] };

let context: Context;
let prompt: Prompt;
let value: Float32Array;

beforeAll(async () => {
  const model = await load('llama');
  context = await model.createContext({ nCtx: 512, kvType: 'f32' });
  prompt = await model.prompt(QUERY);
  value = Float32Array.from({ length: model.info.nEmbd }, (_, i) => Math.sin(i + 1));
});
afterAll(() => context.dispose());

/** Token by token: `editsFor` gives what is done when so many tokens of the answer are there, by absolute position. */
async function byHand(tokens: readonly number[], editsFor: (n: number) => Edits): Promise<number> {
  let sum = 0;
  for (const [n, token] of tokens.entries()) {
    const row = { prompt: prompt.append(tokens.slice(0, n)), ...editsFor(n), logits: 'last' } as const;
    const [result] = await context.pass([row]);
    const logits = result?.logits.data as Float32Array;
    sum += (logits[token] as number) - logSumExp(logits);
  }
  return sum;
}

const upTo = (n: number) => Array.from({ length: n }, (_, i) => i);

test.each<[string, () => Edits, (last: number, n: number) => Edits]>([
  [
    'a patch of the last token',
    () => ({ interventions: [{ layers: LAYERS, op: 'replace', value }] }),
    (last) => ({ interventions: [{ layers: LAYERS, op: 'replace', value, positions: [last] }] }),
  ],
  [
    'a patch counted from the end',
    () => ({ interventions: [{ layers: LAYERS, op: 'add', value, positions: [-2] }] }),
    (last) => ({ interventions: [{ layers: LAYERS, op: 'add', value, positions: [last - 1] }] }),
  ],
  [
    'a direction at all tokens of the prompt',
    () => ({ interventions: [{ layers: LAYERS, op: 'add', value, positions: 'all' }] }),
    (last) => ({ interventions: [{ layers: LAYERS, op: 'add', value, positions: upTo(last + 1) }] }),
  ],
  [
    'a direction at all tokens of prompt and answer',
    () => ({ interventions: [{ layers: LAYERS, op: 'add', value, positions: 'all', steps: 'all' }] }),
    (last, n) => ({ interventions: [{ layers: LAYERS, op: 'add', value, positions: upTo(last + 1 + n) }] }),
  ],
  [
    'a patch of every second token of the answer',
    () => ({ interventions: [{ layers: LAYERS, op: 'replace', value, steps: { every: 2 } }] }),
    (last, n) => ({
      interventions:
        n < 2
          ? []
          : [
              {
                layers: LAYERS,
                op: 'replace',
                value,
                positions: upTo(n + 1)
                  .filter((i) => i && i % 2 === 0)
                  .map((i) => last + i),
              },
            ],
    }),
  ],
  [
    'attention of the last token that is cut',
    () => ({ edges: [{ layers: 'all', from: [1, 2] }] }),
    (last) => ({ edges: [{ layers: 'all', from: [1, 2], to: [last] }] }),
  ],
  [
    'attention of prompt and answer that is cut',
    () => ({ edges: [{ layers: 'all', from: [1, 2], steps: 'all' }] }),
    (last, n) => ({ edges: [{ layers: 'all', from: [1, 2], to: upTo(n + 1).map((i) => last + i) }] }),
  ],
])('options behind %s', async (_, edits, absolute) => {
  const query = { prompt, ...edits() };
  const [scores] = await scoreOptions(context, [{ query, options: OPTIONS }]);
  const [plain] = await scoreOptions(context, [{ query: prompt, options: OPTIONS }]);
  for (const [o, { tokens, logLikelihood }] of (scores ?? []).entries()) {
    expect(tokens.length).toBeGreaterThan(2);
    const expected = await byHand(tokens, (n) => absolute(prompt.length - 1, n));
    expect(logLikelihood).toBeCloseTo(expected, 4);
    expect(Math.abs(logLikelihood - (plain?.[o]?.logLikelihood as number))).toBeGreaterThan(0.01);
  }
});

test('an edit of generated tokens that no option is long enough for is refused', async () => {
  const interventions: Intervention[] = [{ layers: LAYERS, op: 'add', value, steps: { every: 99 } }];
  const query = { prompt, interventions };
  await expectError(() => scoreOptions(context, [{ query, options: OPTIONS }]), 'INTERVENTION_INVALID', /never fires/);
});

test('a sweep keeps the knock-outs of its query', async () => {
  const { model } = context;
  const layers = upTo(model.info.nLayers);
  const capture = { layers, positions: 'last' } as const;
  const [other] = await context.pass([{ prompt: 'The colour of snow:', capture }]);
  const vector = TaskVector.fromStates(other?.states as HiddenStates, {
    model: model.identity,
    readPosition: 'last',
    origin: { op: 'capture', position: 4, token: 1 },
  });
  const edges: Edge[] = [{ layers: 'all', from: [1, 2] }];
  const { plain, logits } = await sweepLayers(context, { prompt, edges }, vector, { logits: true });
  const rows = [[], ...layers.map((layer) => [vector.at(layer)])].map((interventions) => ({
    prompt,
    edges,
    interventions,
    logits: 'last' as const,
    topK: 5,
  }));
  const [first, ...others] = await context.pass(rows);
  expect(plain.top.map(({ token }) => token)).toEqual(first?.top.map(({ token }) => token));
  expect(plain.top[0]?.logit).toBeCloseTo(first?.top[0]?.logit as number, 4);
  const [bare] = await context.pass([{ prompt, topK: 1 }]);
  expect(Math.abs((bare?.top[0]?.logit as number) - (plain.top[0]?.logit as number))).toBeGreaterThan(1e-3);
  const n = model.info.nVocab;
  for (const [i, other] of others.entries()) expect(logits?.data[i * n]).toBeCloseTo(other.logits.data[0] as number, 4);
});
