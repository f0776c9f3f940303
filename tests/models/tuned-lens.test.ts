// The tuned lens of the shipped model, on prompts with other items than it was fitted on, pictures among them.

import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { fitTunedLens } from '../../src/lens/fit-tuned-lens.js';
import { loadModel } from '../../src/model/load-model.js';
import type { Model } from '../../src/model/model.js';
import type { Prompt } from '../../src/prompt/prompt.js';
import { taskLensPrompts } from '../../src/studies/lens-prompts.js';
import { evaluateLens } from '../../src/studies/lens-quality.js';

jest.setTimeout(300_000);

let model: Model;
beforeAll(async () => {
  model = await loadModel('demo', { device: 'cpu', threads: 1 });
});
afterAll(() => model.dispose());

test('as many prompts as asked for are made, however few, of every task and modality in turn', async () => {
  const { fit, validation, test: held } = await taskLensPrompts(model, { prompts: 15, test: 2 });
  expect([fit.length, validation.length, held.length]).toEqual([12, 3, 2]);
  expect(fit.filter(({ tokens }) => tokens.includes(-1))).toHaveLength(6);
});

test('no item is on two sides, nor in another task of its domain', async () => {
  const { fit, validation, test: held, testItems } = await taskLensPrompts(model, { prompts: 400, test: 400 });
  const textsOf = (prompts: readonly Prompt[]) =>
    prompts.map((prompt) => prompt.record().text).filter((text) => !text.includes('<image>'));
  const itemsOf = (prompts: readonly Prompt[]) =>
    new Set(textsOf(prompts).flatMap((text) => [...text.matchAll(/Q:(.*)\n/g)].map(([, item]) => item)));
  const [a, b, c] = [itemsOf(fit), itemsOf(validation), itemsOf(held)];
  expect(Math.min(a.size, b.size, c.size)).toBeGreaterThan(20);
  // Countries, animals and foods have names of their own, so the text says which item it is.
  expect([...c].filter((item) => a.has(item) || b.has(item))).toEqual([]);
  expect([...b].filter((item) => a.has(item))).toEqual([]);
  expect(testItems.filter((item) => a.has(item.replace(/^.*?: /, '')))).toEqual([]);
});

test('it is never worse than the plain lens, mean over layers', async () => {
  const context = await model.createContext();
  const { fit, validation, test: held } = await taskLensPrompts(model, { prompts: 96, test: 48 });
  expect([fit.length, validation.length, held.length]).toEqual([72, 24, 48]);
  const key = (prompt: Prompt) =>
    JSON.stringify(prompt.segments.map((s) => (s.kind === 'image' ? s.key : [...s.tokens])));
  expect(new Set([...fit, ...validation, ...held].map(key)).size).toBe(144);
  expect(held.filter(({ tokens }) => tokens.includes(-1))).toHaveLength(24);

  const lens = await fitTunedLens(context, fit, { validation });
  const { mean, layers } = await evaluateLens(context, held, lens);
  expect(mean.tuned?.value).toBeLessThan(mean.plain.value);
  expect(mean.gain?.low).toBeGreaterThan(0);
  // The better the later layers know the answer, the closer both lenses are to it.
  const tuned = layers.map((layer) => layer.tuned?.value as number);
  expect(tuned).toEqual([...tuned].sort((a, b) => b - a));
});
