import { createHash } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { Random } from '../../src/util/random.js';
import { expectError } from './helpers.js';

const take = <T>(n: number, draw: () => T): T[] => Array.from({ length: n }, draw);

describe('Random', () => {
  test('gives the published output of xoshiro128** 1.1', () => {
    // Made by the authors' xoshiro128starstar.c from the state {1, 2, 3, 4}; quoted from the tests of the Rust crate rand_xoshiro.
    const published = [
      11520, 0, 5927040, 70819200, 2031721883, 1637235492, 1287239034, 3734860849, 3729100597, 4258142804,
    ];
    const random = Random.fromState([1, 2, 3, 4]);
    expect(take(10, () => random.uint32())).toEqual(published);
  });

  test('takes its state from SHA-256 of seed and stream', () => {
    const digest = createHash('sha256').update('[7,"split","Peru"]').digest();
    const state = [0, 4, 8, 12].map((offset) => digest.readUInt32LE(offset)) as [number, number, number, number];
    const expected = Random.fromState(state);
    const random = new Random(7, 'split', 'Peru');
    expect(take(5, () => random.uint32())).toEqual(take(5, () => expected.uint32()));
  });

  test('has streams that differ by seed, name and the borders between names', () => {
    const first = (...stream: [number, ...(string | number)[]]) => new Random(...stream).uint32();
    const draws = [
      first(1),
      first(2),
      first(1, 'a'),
      first(1, 'ab', 'c'),
      first(1, 'a', 'bc'),
      first(1, '1'),
      first(1, 1),
    ];
    expect(new Set(draws).size).toBe(draws.length);
  });

  test('draws uniform, integer and normal numbers with the right moments', () => {
    const random = new Random(1, 'moments');
    const n = 200_000;
    const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
    const uniform = take(n, () => random.uniform());
    expect(Math.min(...uniform.slice(0, 1000))).toBeGreaterThanOrEqual(0);
    expect(mean(uniform)).toBeCloseTo(0.5, 2);
    expect(mean(uniform.map((x) => (x - 0.5) ** 2))).toBeCloseTo(1 / 12, 2);
    const normal = take(n, () => random.gaussian());
    expect(mean(normal)).toBeCloseTo(0, 1.5);
    expect(mean(normal.map((x) => x ** 2))).toBeCloseTo(1, 1.5);
    expect(mean(normal.map((x) => x ** 4))).toBeCloseTo(3, 0.5);
    const counts = [0, 0, 0, 0, 0, 0];
    for (const die of take(n, () => random.integer(6))) counts[die] = (counts[die] ?? 0) + 1;
    // Chi square with 5 degrees of freedom: 20.5 is exceeded with probability 0.001; the seed is fixed.
    const chiSquare = counts.reduce((sum, count) => sum + (count - n / 6) ** 2 / (n / 6), 0);
    expect(chiSquare).toBeLessThan(20.5);
  });

  test('samples different elements and leaves the input as it was', () => {
    const items = Object.freeze(['a', 'b', 'c', 'd', 'e']);
    const random = new Random(3);
    expect(new Set(random.sample(items, 3)).size).toBe(3);
    expect(random.sample(items).sort()).toEqual(items);
    expect(random.sample(items, 0)).toEqual([]);
    const firsts = new Set(take(200, () => random.sample(items, 1)[0]));
    expect(firsts.size).toBe(5);
  });

  test('refuses seeds, ranges and sample sizes that make no sense', async () => {
    for (const seed of [-1, 0.5, Number.NaN, 2 ** 53]) {
      await expectError(() => new Random(seed), 'INVALID_ARGUMENT', /seed/);
    }
    await expectError(() => new Random(1).integer(0), 'INVALID_ARGUMENT', /2\^32/);
    await expectError(() => new Random(1).sample([1, 2], 3), 'INVALID_ARGUMENT', /3 different elements out of 2/);
  });
});
