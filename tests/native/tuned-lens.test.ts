// The tuned lens on tiny models with random weights: fitted, applied, and never worse than the plain one.

import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { fitTunedLens } from '../../src/lens/fit-tuned-lens.js';
import { logitLens } from '../../src/lens/logit-lens.js';
import { TunedLens } from '../../src/lens/tuned-lens.js';
import type { HiddenStates } from '../../src/model/hidden-states.js';
import type { Model } from '../../src/model/model.js';
import type { Prompt } from '../../src/prompt/prompt.js';
import { textLensPrompts } from '../../src/studies/lens-prompts.js';
import { evaluateLens } from '../../src/studies/lens-quality.js';
import { Random } from '../../src/util/random.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';
import { load, picture, tokenPrompt } from './helpers.js';

const folder = await temporaryFolder();

/** Prompts of random tokens; `from` is the first seed. */
const prompts = (model: Model, count: number, from: number): Promise<Prompt[]> =>
  Promise.all(Array.from({ length: count }, (_, i) => tokenPrompt(model, 24, from + i)));

describe.each(['llama', 'gemma2', 'gpt-neox', 'phi3'])('%s', (family) => {
  test('reads the last layer better than the plain lens on prompts that it never saw, and survives its file', async () => {
    const model = await load(family);
    const context = await model.createContext();
    const lens = await fitTunedLens(context, await prompts(model, 60, 1));
    expect(lens.info.layers).toEqual(Array.from({ length: model.info.nLayers - 1 }, (_, i) => i));
    expect(lens.info.fit).toMatchObject({ prompts: 48, positions: 48 * 23, validationPrompts: 12, seed: 1 });

    const path = join(folder, `${family}.safetensors`);
    await lens.save(path);
    const loaded = await TunedLens.load(path, model.identity);
    expect(loaded).toEqual(lens);

    const test = await prompts(model, 20, 1000);
    const { layers, mean } = await evaluateLens(context, test, loaded, { positions: 23 });
    // Random blocks rotate the residual stream little, so that the plain lens is good here; a gain there must be all the same.
    expect(mean.gain?.low).toBeGreaterThan(0);
    expect(layers.map(({ layer }) => layer)).toEqual(lens.info.layers);
    for (const { plain, tuned } of layers) expect(tuned?.value).toBeLessThan(plain.value * 1.01);

    // The same numbers by hand: mean over all prompts and positions of the KL of the translated states.
    let sum = 0;
    for (const prompt of test) {
      const capture = { layers: [0, model.info.nLayers - 1], positions: Array.from({ length: 23 }, (_, i) => i + 1) };
      const [result] = await context.pass([{ prompt, capture }]);
      const { cells } = await logitLens(context, await loaded.apply(result?.states as HiddenStates));
      sum += (cells[0] ?? []).reduce((total, cell) => total + cell.kl, 0) / 23;
    }
    expect(layers[0]?.tuned?.value).toBeCloseTo(sum / test.length, 4);
  });
});

test('a fit depends on the seed, not on repeated prompts or on how many layers fit into memory', async () => {
  const model = await load('llama');
  const context = await model.createContext();
  const some = await prompts(model, 40, 1);
  const lens = await fitTunedLens(context, some, { positions: 600 });
  const again = await fitTunedLens(context, [...some, ...some], { positions: 600, memory: 1 });
  expect(again.info).toEqual(lens.info);
  const strengths = lens.translators.map(({ strength }) => strength);
  expect(again.translators.map(({ strength }) => strength)).toEqual(strengths);
  const other = await fitTunedLens(context, some, { positions: 600, seed: 2 });
  expect(other.info.fit).toEqual({ ...lens.info.fit, seed: 2 });
  const [a, b, c] = [lens, again, other].map(({ translators }) => translators[0]?.bias as Float32Array);
  const distance = (x?: Float32Array) => Math.hypot(...(a ?? []).map((value, i) => value - (x?.[i] as number)));
  expect(distance(b)).toBeLessThan(0.01 * distance(c));
});

test('pictures are fitted and translated like tokens', async () => {
  const model = await load('llava', { vision: true });
  const context = await model.createContext();
  const made = await Promise.all(
    Array.from({ length: 10 }, (_, i) =>
      model.prompt([{ tokens: [1, 50 + i, 80 - i] }, { image: picture(`square-${'ab'[i % 2]}.png`) }, `x${i}`]),
    ),
  );
  const lens = await fitTunedLens(context, made);
  const prompt = made[0] as Prompt;
  const [result] = await context.pass([{ prompt, capture: { layers: 'all', positions: 'all' } }]);
  const states = result?.states as HiddenStates;
  expect(states.tokens).toContain(-1);
  const plain = await logitLens(context, states);
  const tuned = await logitLens(context, await lens.apply(states));
  expect(tuned.cells.at(-1)).toEqual(plain.cells.at(-1));
  expect(tuned.cells[0]).not.toEqual(plain.cells[0]);
});

test('windows of a text are disjoint, also where it repeats itself', async () => {
  const model = await load('llama');
  const random = new Random(1, 'text');
  // One digit is one token here: 20 different windows, three times.
  const digits = Array.from({ length: 20 * 64 }, () => random.integer(10)).join('');
  const text = digits.repeat(3);
  expect(model.tokenize(text).length).toBe(text.length);
  const { fit, validation, test: held } = await textLensPrompts(model, text, { prompts: 10, test: 5 });
  expect([fit.length, validation.length, held.length]).toEqual([8, 2, 5]);
  const windows = [...fit, ...validation, ...held].map((prompt) => prompt.tokens.join());
  expect(new Set(windows).size).toBe(15);
  await expectError(
    () => textLensPrompts(model, 'too short'),
    'INVALID_ARGUMENT',
    /0 different windows.*Give a longer one/,
  );
});

test('what cannot be fitted or tested is refused, and an abort ends it', async () => {
  const model = await load('llama');
  const context = await model.createContext();
  const some = await prompts(model, 20, 1);
  const one = await tokenPrompt(model, 1);
  await expectError(() => fitTunedLens(context, some.slice(0, 4)), 'INVALID_ARGUMENT', /4 different prompts/);
  await expectError(() => fitTunedLens(context, [...some.slice(0, 4), one, one]), 'INVALID_ARGUMENT', /4 different/);
  await expectError(() => fitTunedLens(context, some, { positions: 0 }), 'INVALID_ARGUMENT', /positions 0/);
  await expectError(() => fitTunedLens(context, some, { memory: Number.NaN }), 'INVALID_ARGUMENT', /memory NaN/);
  await expectError(() => fitTunedLens(context, some, { validation: [one] }), 'INVALID_ARGUMENT', /0 to validate on/);
  await expectError(() => fitTunedLens(context, some, { validation: some }), 'INVALID_ARGUMENT', /0 different/);
  await expectError(
    () => evaluateLens(context, [one, ...some.slice(0, 1)], undefined),
    'INVALID_ARGUMENT',
    /at least 2/,
  );
  const abort = new AbortController();
  const onProgress = () => abort.abort();
  await expectError(() => fitTunedLens(context, some, { signal: abort.signal, onProgress }), 'ABORTED', /abort/);
});
