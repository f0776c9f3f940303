// The logit lens against the model's own logits, and its numbers against plain arithmetic on them.

import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { makeModel } from '../../bench/make-model.mjs';
import { finalNorm } from '../../src/lens/final-norm.js';
import { type Lens, type LensCell, logitLens } from '../../src/lens/logit-lens.js';
import { readPromptLens } from '../../src/lens/prompt-lens.js';
import type { Context } from '../../src/model/context.js';
import { HiddenStates } from '../../src/model/hidden-states.js';
import { loadModel } from '../../src/model/load-model.js';
import type { Model } from '../../src/model/model.js';
import type { PassResult } from '../../src/model/pass.js';
import { TaskVector } from '../../src/vectors/task-vector.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';
import { load, picture, randomVector } from './helpers.js';

const TEXT = ['llama', 'qwen2', 'gemma2', 'gpt-neox', 'phi3'];
const PICTURES: [family: string, file: string][] = [
  ['llava', 'square-a.png'],
  ['llava-siglip', 'square-a.png'],
  ['qwen2-vl', 'grid-a.png'],
  ['gemma3', 'square-a.png'],
];
const folder = await temporaryFolder();
const TOKENS = [10, 88, 147, 129, 281, 79, 70];
const everything = { capture: { layers: 'all', positions: 'all' }, logits: 'all' } as const;

const cellAt = (lens: Lens, l: number, p: number) => lens.cells[l]?.[p] as LensCell;

/** What plain arithmetic in double precision says of logits. */
function distribution(logits: readonly number[]) {
  const max = Math.max(...logits);
  const lse = Math.log(logits.reduce((sum, x) => sum + Math.exp(x - max), 0)) + max;
  const entropy = -logits.reduce((sum, x) => sum + Math.exp(x - lse) * (x - lse), 0);
  return { lse, entropy, sorted: [...logits].sort((a, b) => b - a) };
}

/** Every number of a cell follows from the logits of its state. */
function expectCell(cell: LensCell, logits: readonly number[]) {
  const { lse, entropy, sorted } = distribution(logits);
  for (const { token, logit, probability } of [...cell.top, ...cell.tokens]) {
    expect(logit).toBeCloseTo(logits[token] as number, 4);
    expect(probability).toBeCloseTo(Math.exp((logits[token] as number) - lse), 5);
  }
  expect(cell.top.map((t) => t.logit)).toEqual(sorted.slice(0, cell.top.length).map((x) => expect.closeTo(x, 4)));
  for (const { token, rank } of cell.tokens) {
    expect(rank).toBe(logits.filter((x) => x > (logits[token] as number)).length);
  }
  expect(cell.entropy).toBeCloseTo(entropy, 4);
}

describe.each([...TEXT.map((family) => [family, ''] as const), ...PICTURES])('%s', (family, file) => {
  let model: Model;
  let context: Context;
  let pass: PassResult & { states: HiddenStates };
  let lens: Lens;

  beforeAll(async () => {
    model = await load(family, { vision: file !== '' });
    context = await model.createContext({ nCtx: 256 });
    const tokens = { tokens: TOKENS };
    const prompt = await model.prompt(file ? [tokens, { image: picture(file) }, tokens] : tokens);
    [pass] = (await context.pass([{ prompt, ...everything }])) as [typeof pass];
    lens = await logitLens(context, pass, { topK: 4, tokens: [0, 5] });
  });

  test('the lens of the last layer is the logits of the model at every position, rows of a picture included', () => {
    const { nVocab, nLayers } = model.info;
    expect(pass.states.tokens.includes(-1)).toBe(file !== '');
    pass.states.positions.forEach((_, p) => {
      const logits = Array.from(pass.logits?.data.subarray(p * nVocab, (p + 1) * nVocab) as Float32Array);
      expectCell(cellAt(lens, nLayers - 1, p), logits);
      expect(cellAt(lens, nLayers - 1, p).kl).toBe(0);
    });
  });

  test('KL is that of the lens of the layer from the last one, and settling follows from the best tokens', async () => {
    // All tokens of the vocabulary asked for give the whole distribution of every cell.
    const tokens = Array.from({ length: model.info.nVocab }, (_, i) => i);
    const whole = await logitLens(context, pass, { tokens });
    const { nLayers } = model.info;
    pass.states.positions.forEach((_, p) => {
      const at = (l: number) => cellAt(whole, l, p).tokens.map((t) => t.probability);
      const final = at(nLayers - 1);
      for (let l = 0; l < nLayers; l++) {
        const kl = final.reduce((sum, q, i) => sum + (q > 0 ? q * Math.log(q / (at(l)[i] as number)) : 0), 0);
        expect(cellAt(whole, l, p).kl).toBeCloseTo(kl, 3);
      }
      const best = whole.cells.map((row) => row[p]?.top[0]?.token);
      const settled = best.findIndex((_, l) => best.slice(l).every((token) => token === best.at(-1)));
      expect(whole.settled[p]).toBe(settled);
    });
  });

  test('states after the final norm, read without it, are read as before; with it they are not', async () => {
    const normed = await finalNorm(context, pass.states);
    expect(normed).toEqual({ ...pass.states, data: expect.any(Float32Array) });
    const again = await logitLens(context, normed, { topK: 4, tokens: [0, 5], normalise: false });
    const near = (cell: LensCell) => [cell.entropy, cell.kl, ...[...cell.top, ...cell.tokens].map((t) => t.logit)];
    const flat = ({ cells }: Lens) => cells.flat().flatMap(near);
    expect(flat(again)).toEqual(flat(lens).map((x) => expect.closeTo(x, 4)));
    const raw = await logitLens(context, pass.states, { topK: 4, tokens: [0, 5], normalise: false });
    expect(flat(raw)).not.toEqual(flat(lens).map((x) => expect.closeTo(x, 1)));
  });
});

test('a task vector has a lens too, and a final norm', async () => {
  const model = await load('llama');
  const context = await model.createContext();
  const prompt = await model.prompt({ tokens: TOKENS });
  const pass = await context.run({ prompt, capture: { layers: [0, 2], positions: 'last' } });
  const origin = { op: 'capture' as const, position: 6, token: 70 };
  const vector = TaskVector.fromStates(pass.states, {
    model: model.identity,
    readPosition: 'position',
    origin,
  });
  expect(await logitLens(context, vector)).toEqual({ ...(await logitLens(context, pass)), positions: [0] });
  expect((await finalNorm(context, vector)).data).toEqual((await finalNorm(context, pass)).data);
});

test('layers come out in order, whatever order they were named in, so that the last is the model’s answer', async () => {
  const model = await load('llama');
  const context = await model.createContext();
  const prompt = await model.prompt({ tokens: TOKENS });
  const { lens, last } = await readPromptLens(context, prompt, { layers: [2, 0], topK: 1 });
  expect([lens.layers, last.layers]).toEqual([
    [0, 2],
    [0, 2],
  ]);
  const [{ top }] = await context.pass([{ prompt, topK: 1 }]);
  expect(last.cells.at(-1)?.[0]?.top[0]?.token).toBe(top[0]?.token);
});

test('states behind the final norm are read without another; those of heads are refused', async () => {
  const model = await load('llama');
  const context = await model.createContext();
  const prompt = await model.prompt({ tokens: TOKENS });
  const captures = (['resid_post', 'final_norm', 'z', 'q'] as const).map((hook) => ({
    hook,
    positions: 'last' as const,
  }));
  const [{ captured }] = await context.pass([{ prompt, captures }]);
  const [stream, normed, ...ofHeads] = captured as [HiddenStates, HiddenStates, HiddenStates, HiddenStates];
  const [expected, found] = [await logitLens(context, stream), await logitLens(context, normed)];
  expect(found.cells[0]?.[0]?.top[0]?.token).toBe(expected.cells.at(-1)?.[0]?.top[0]?.token);
  expect(found.cells[0]?.[0]?.top[0]?.logit).toBeCloseTo(expected.cells.at(-1)?.[0]?.top[0]?.logit as number, 3);
  for (const states of ofHeads) {
    expect(states.shape[2]).toBe(model.info.nEmbd);
    await expectError(() => logitLens(context, states), 'LENS_UNSUPPORTED', /not in the space of the residual stream/);
  }
});

describe('what cannot be read', () => {
  let model: Model;
  let context: Context;
  const grid = (
    layers: number[],
    nPositions: number,
    { data, nEmbd = 64 }: { data?: Float32Array; nEmbd?: number } = {},
  ) => {
    const positions = Array.from({ length: nPositions }, (_, i) => i);
    const of = { hash: '', architecture: 'llama', name: '', nEmbd, nLayers: 3 };
    const places = { layers, positions, tokens: positions.map(() => 1) };
    return new HiddenStates(
      { hook: 'resid_post', model: of, ...places },
      data ?? randomVector(layers.length * nPositions * nEmbd, 7),
    );
  };

  beforeAll(async () => {
    model = await load('llama');
    context = await model.createContext();
  });

  test.each([
    ['a layer that the model lacks', grid([1, 3], 2), 'LAYER_OUT_OF_RANGE', /Layer 3.*0 to 2/],
    ['a layer twice', grid([1, 1], 2), 'INVALID_ARGUMENT', /repeat/],
    ['another width', grid([0], 2, { nEmbd: 32 }), 'VECTOR_MISMATCH', /width 32.*width 64/],
    ['NaN', grid([0], 2, { data: randomVector(128, 7).fill(Number.NaN, 70, 71) }), 'NOT_FINITE', /NaN/],
    ['infinity', grid([0], 2, { data: randomVector(128, 7).fill(-Infinity, 70, 71) }), 'NOT_FINITE', /infinity/],
    ['what is no states', { data: new Float32Array(64) } as HiddenStates, 'INVALID_ARGUMENT', /not hidden states/],
    ['nothing', undefined as unknown as HiddenStates, 'INVALID_ARGUMENT', /not hidden states/],
    ['numbers that a norm makes zeros of', grid([0], 2, { data: randomVector(128, 7, 1e25) }), 'NOT_FINITE', /range/],
  ] as const)('%s', async (_, states, code, message) => {
    await expectError(() => logitLens(context, states), code, message);
    await expectError(() => logitLens(context, states, { normalise: false }), code, message);
    await expectError(() => finalNorm(context, states), code, message);
  });

  test('states of no layers or positions, or of too few numbers, cannot be made', async () => {
    await expectError(() => grid([], 3), 'INVALID_ARGUMENT', /0 layers/);
    await expectError(() => grid([0, 1], 0), 'INVALID_ARGUMENT', /0 positions/);
    await expectError(() => grid([0], 2, { data: new Float32Array(64) }), 'INVALID_ARGUMENT', /64 numbers/);
  });

  test('a pass that read nothing, a vector of another model, wrong options', async () => {
    const prompt = await model.prompt({ tokens: TOKENS });
    const [pass] = (await context.pass([{ prompt, topK: 1 }])) as [PassResult];
    await expectError(() => logitLens(context, pass), 'INVALID_ARGUMENT', /capture/);
    const info = {
      hook: 'resid_post',
      readPosition: 'position',
      origin: { op: 'capture', position: 0, token: 1 },
    } as const;
    const deep = new TaskVector(
      { ...info, layers: [5], model: { ...model.identity, nLayers: 6 } },
      randomVector(64, 1),
    );
    await expectError(() => logitLens(context, deep), 'LAYER_OUT_OF_RANGE', /Layer 5/);
    const narrow = new TaskVector(
      { ...info, layers: [0], model: { ...model.identity, nEmbd: 32 } },
      randomVector(32, 1),
    );
    await expectError(() => logitLens(context, narrow), 'VECTOR_MISMATCH', /width/);
    for (const topK of [-1, 1.5, 289]) {
      await expectError(() => logitLens(context, grid([0], 1), { topK }), 'INVALID_ARGUMENT', /top-k/);
    }
    for (const token of [-1, 0.5, 288]) {
      await expectError(
        () => logitLens(context, grid([0], 1), { tokens: [token] }),
        'TOKEN_INVALID',
        /vocabulary of 288/,
      );
    }
    const { cells, settled } = await logitLens(context, grid([0], 1), { topK: 0 });
    expect([cells[0]?.[0]?.top, settled]).toEqual([[], []]);
  });
});

describe('a large vocabulary and grids of many pieces', () => {
  let model: Model;
  let context: Context;
  let pass: PassResult;

  beforeAll(async () => {
    const path = join(folder, 'model.gguf');
    makeModel(path, { layers: 2 });
    model = await loadModel(path, { device: 'cpu', threads: 2 });
    context = await model.createContext({ nCtx: 256, nUbatch: 32 });
    const prompt = await model.prompt({ tokens: Array.from({ length: 150 }, (_, i) => 10 + i * 300) });
    [pass] = (await context.pass([{ prompt, ...everything }])) as [PassResult];
  });

  test('every number follows from the logits, in every piece', async () => {
    const { nVocab } = model.info;
    const lens = await logitLens(context, pass, { topK: 50, tokens: [0, 30000, nVocab - 1] });
    for (const p of [0, 63, 64, 149]) {
      const logits = pass.logits?.data.subarray(p * nVocab, (p + 1) * nVocab) as Float32Array;
      expectCell(cellAt(lens, 1, p), Array.from(logits));
    }
  });

  const progress = (then: () => void) => {
    const seen: number[] = [];
    return { seen, onProgress: ({ done }: { done: number }) => seen.push(done) === 1 && then() };
  };

  test('no other call gets in between the pieces', async () => {
    const others: Promise<void>[] = [];
    const { seen, onProgress } = progress(() => {
      others.push(expectError(() => logitLens(context, pass), 'BUSY', /another call/));
      others.push(expectError(() => finalNorm(context, pass), 'BUSY', /another call/));
    });
    await logitLens(context, pass, { onProgress });
    expect(seen).toEqual([128, 256, 300]);
    expect(others).toHaveLength(2);
    await Promise.all(others);
  });

  test('an abort ends it after the piece under way; the context goes on', async () => {
    const early = AbortSignal.abort();
    await expectError(() => logitLens(context, pass, { signal: early }), 'ABORTED', /before it began/);
    const controller = new AbortController();
    const { seen, onProgress } = progress(() => controller.abort());
    await expectError(() => logitLens(context, pass, { signal: controller.signal, onProgress }), 'ABORTED', /aborted/);
    expect(seen).toEqual([128]);
    const within = logitLens(context, pass, { signal: AbortSignal.timeout(10), onProgress });
    await expectError(() => within, 'ABORTED', /aborted/);
    expect(seen).toEqual([128]);
    expect((await logitLens(context, pass)).cells).toHaveLength(2);
  });

  test('dispose ends it, between the pieces and within one', async () => {
    const other = await model.createContext({ nCtx: 256, nUbatch: 32 });
    const { seen, onProgress } = progress(() => void other.dispose());
    await expectError(() => logitLens(other, pass, { onProgress }), 'ABORTED', /aborted/);
    expect(seen).toEqual([128]);
    const within = logitLens(context, pass, { onProgress });
    setTimeout(() => model.dispose(), 10);
    await expectError(() => within, 'ABORTED', /aborted/);
    expect(seen).toEqual([128]);
    await expectError(() => logitLens(context, pass), 'DISPOSED', /disposed/);
  });
});
