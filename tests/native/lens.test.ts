// The logit lens against the model's own logits, and its numbers against plain arithmetic on them.
import { afterAll, describe, expect, test } from '@jest/globals';
import { type Lens, logitLens } from '../../src/lens/logit-lens.js';
import { type Context, loadModel, type Model, type PassResult } from '../../src/model/index.js';
import { TaskVector } from '../../src/vectors/task-vector.js';
import { expectError } from '../unit/helpers.js';
import { FIXTURES } from './helpers.js';

const FAMILIES = ['llama', 'qwen2', 'gemma2', 'gpt-neox', 'phi3', 'llava', 'qwen2-vl', 'gemma3'];
const TOKENS = [10, 88, 147, 129, 281, 79, 70];

describe.each(FAMILIES)('%s', (family) => {
  let model: Model;
  let context: Context;
  let pass: PassResult;
  let lens: Lens;

  afterAll(() => model.dispose());

  test('the lens of the last layer is the logits of the model, and every number follows from them', async () => {
    model = await loadModel(`${FIXTURES}/${family}.gguf`, { device: 'cpu' });
    context = await model.createContext();
    const prompt = await model.prompt({ tokens: TOKENS });
    [pass] = (await context.pass([{ prompt, capture: { layers: 'all', positions: 'all' }, logits: 'all' }])) as [
      PassResult,
    ];
    lens = await logitLens(context, pass.states as NonNullable<PassResult['states']>, { topK: 4, tokens: [0, 5] });

    const { nVocab, nLayers } = model.info;
    const last = lens.cells[nLayers - 1] as Lens['cells'][number];
    TOKENS.forEach((_, p) => {
      const logits = Array.from(pass.logits?.data.subarray(p * nVocab, (p + 1) * nVocab) as Float32Array);
      const sorted = [...logits].sort((a, b) => b - a);
      const lse =
        Math.log(logits.reduce((sum, x) => sum + Math.exp(x - (sorted[0] as number)), 0)) + (sorted[0] as number);
      const entropy = -logits.reduce((sum, x) => sum + Math.exp(x - lse) * (x - lse), 0);
      const cell = last[p] as Lens['cells'][number][number];
      for (const { token, logit, probability } of [...cell.top, ...cell.tokens]) {
        expect(logit).toBeCloseTo(logits[token] as number, 4);
        expect(probability).toBeCloseTo(Math.exp((logits[token] as number) - lse), 5);
      }
      expect(cell.top.map((t) => t.logit)).toEqual(sorted.slice(0, 4).map((x) => expect.closeTo(x, 4)));
      for (const { token, rank } of cell.tokens) {
        expect(rank).toBe(logits.filter((x) => x > (logits[token] as number)).length);
      }
      expect(cell.entropy).toBeCloseTo(entropy, 4);
      expect(cell.kl).toBeCloseTo(0, 5);
    });
  });

  test('KL is that of the lens of the layer from the last one, and settling follows from the best tokens', async () => {
    // All tokens of the vocabulary asked for give the whole distribution of every cell.
    const tokens = Array.from({ length: model.info.nVocab }, (_, i) => i);
    const whole = await logitLens(context, pass.states as NonNullable<PassResult['states']>, { tokens });
    const { nLayers } = model.info;
    TOKENS.forEach((_, p) => {
      const at = (l: number) => (whole.cells[l]?.[p]?.tokens ?? []).map((t) => t.probability);
      const final = at(nLayers - 1);
      for (let l = 0; l < nLayers; l++) {
        const kl = final.reduce((sum, q, i) => sum + (q > 0 ? q * Math.log(q / (at(l)[i] as number)) : 0), 0);
        expect(whole.cells[l]?.[p]?.kl).toBeCloseTo(kl, 3);
      }
      const best = whole.cells.map((row) => row[p]?.top[0]?.token);
      const settled = best.findIndex((_, l) => best.slice(l).every((token) => token === best.at(-1)));
      expect(whole.settled[p]).toBe(settled);
    });
  });
});

test('a task vector has a lens too; one of another width is refused, as are wrong options', async () => {
  const model = await loadModel(`${FIXTURES}/llama.gguf`, { device: 'cpu' });
  const context = await model.createContext();
  const prompt = await model.prompt({ tokens: TOKENS });
  const [pass] = await context.pass([{ prompt, capture: { layers: [0, 2], positions: 'last' } }]);
  const states = pass?.states as NonNullable<PassResult['states']>;
  const info = {
    model: model.identity,
    readPosition: 'position',
    origin: { op: 'capture' as const, position: 6, token: 70 },
  };
  const vector = TaskVector.fromStates(states, info);
  expect(await logitLens(context, vector)).toEqual({ ...(await logitLens(context, states)), positions: [0] });

  const narrow = { ...model.identity, nEmbd: 32 };
  const other = new TaskVector({ ...vector.info, model: narrow }, vector.toArray().slice(0, 64));
  await expectError(() => logitLens(context, other), 'VECTOR_MISMATCH', /width/);
  await expectError(() => logitLens(context, states, { topK: 1000 }), 'INVALID_ARGUMENT', /topK/);
  await expectError(() => logitLens(context, states, { tokens: [288] }), 'TOKEN_INVALID', /288/);
  const busy = logitLens(context, states);
  await expectError(() => logitLens(context, states), 'BUSY', /another call/);
  await busy;
  await model.dispose();
  await expectError(() => logitLens(context, states), 'DISPOSED', /disposed/);
});
