// Tiny models with random weights (tests/reference/README.md says how they were made), and comparisons.

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, jest } from '@jest/globals';
import { loadModel } from '../../src/model/load-model.js';
import type { LoadOptions, Model } from '../../src/model/model.js';
import type { PassResult } from '../../src/model/pass.js';
import type { Prompt } from '../../src/prompt/prompt.js';
import { Random } from '../../src/util/random.js';

// Milliseconds: other work on the machine may slow everything down.
jest.setTimeout(300_000);

export const FIXTURES = fileURLToPath(new URL('../fixtures/models/', import.meta.url));

export const fixture = (name: string) => join(FIXTURES, name);
export const picture = (name: string) => join(FIXTURES, 'pictures', name);

const opened: Model[] = [];
afterAll(async () => {
  for (const model of opened) await model.dispose();
});

/** A fixture on the CPU, disposed after the file's tests. `vision` adds the mmproj beside it. */
export async function load(name: string, options: LoadOptions & { vision?: boolean } = {}): Promise<Model> {
  const { vision, ...rest } = options;
  return openModel(fixture(`${name}.gguf`), { mmproj: vision ? fixture(`${name}.mmproj.gguf`) : undefined, ...rest });
}

/** The same for a file of the test's own. */
export async function openModel(path: string, options: LoadOptions = {}): Promise<Model> {
  const model = await loadModel(path, { device: 'cpu', threads: 1, ...options });
  opened.push(model);
  return model;
}

/** A prompt of `n` seeded token ids. */
export function tokenPrompt(model: Model, n: number, seed = 1): Promise<Prompt> {
  return model.prompt({ tokens: randomTokens(model, n, seed) });
}

export function randomTokens(model: Model, n: number, seed = 1): number[] {
  const random = new Random(seed, 'tokens');
  return Array.from({ length: n }, () => 5 + Math.floor(random.uniform() * (model.info.nVocab - 5)));
}

export function randomVector(n: number, seed: number, scale = 1): Float32Array {
  const random = new Random(seed, 'vector');
  return Float32Array.from({ length: n }, () => scale * random.gaussian());
}

export function cosine(a: Float32Array, b: Float32Array): number {
  let [dot, a2, b2] = [0, 0, 0];
  for (const [i, x] of a.entries()) {
    const y = b[i] as number;
    dot += x * y;
    a2 += x * x;
    b2 += y * y;
  }
  return a2 === 0 && b2 === 0 ? 1 : dot / Math.sqrt(a2 * b2); // zeroed states point nowhere, alike
}

export function argmax(values: Float32Array): number {
  return values.reduce((best, value, i) => (value > (values[best] as number) ? i : best), 0);
}

export function logitsOf(result: PassResult | undefined): Float32Array {
  return result?.logits?.data as Float32Array;
}

export function statesOf(result: PassResult | undefined): Float32Array {
  return result?.states?.data as Float32Array;
}

/** The tolerance between two orders of the same arithmetic (issue: sweep = naive sweep). */
export const SAME = 1 - 1e-5;

/** Every row of `width` values points the same way; for logits the best token is the same too. */
export function expectSame(
  actual: Float32Array,
  expected: Float32Array,
  width: number,
  kind: 'states' | 'logits',
): void {
  expect(actual.length).toBe(expected.length);
  const off: string[] = [];
  for (let at = 0; at < expected.length; at += width) {
    const [a, e] = [actual.subarray(at, at + width), expected.subarray(at, at + width)];
    const same = cosine(a, e);
    if (!(same >= SAME)) off.push(`row ${at / width}: cosine ${same}`);
    if (kind === 'logits' && argmax(a) !== argmax(e))
      off.push(`row ${at / width}: best ${argmax(a)}, not ${argmax(e)}`);
  }
  expect(off).toEqual([]);
}
