import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { compareFamily, holm, permutationTest } from '../../src/stats/permutation.js';
import { bootstrapInterval, differenceInterval, type Observation, wilsonInterval } from '../../src/stats/statistics.js';
import { Random } from '../../src/util/random.js';
import { expectError } from './helpers.js';

interface Row extends Omit<Observation, 'value'> {
  first: number;
  second: number;
}
/** By scipy and statsmodels: tests/reference/inference.py. */
const reference = JSON.parse(readFileSync(new URL('../fixtures/statistics.json', import.meta.url), 'utf8')) as {
  exact: { rows: Row[]; p: number; difference: number; items: number }[];
  mcnemar: { rows: Row[]; p: number };
  drawn: { rows: Row[]; p: number; difference: number; items: number };
  bootstrap: { sums: number[]; counts: number[]; low: number; high: number };
  holm: { p: number[]; adjusted: number[] }[];
  wilson: { successes: number; n: number; low: number; high: number }[];
};

const side = (rows: readonly Row[], which: 'first' | 'second'): Observation[] =>
  rows.map(({ first, second, ...row }) => ({ ...row, value: which === 'first' ? first : second }));
const testRows = (rows: readonly Row[], seed = 0) => permutationTest(side(rows, 'first'), side(rows, 'second'), seed);

/** Scores of two conditions that are alike on items of differing difficulty, under three seeds. */
function nullRows(random: Random, items: number, continuous = false): Row[] {
  return Array.from({ length: items }, (_, i) => {
    const difficulty = random.uniform();
    const shared = [0, 1].map(() => (continuous ? random.gaussian() : random.uniform() < difficulty ? 1 : 0));
    // Each condition keeps its answer on an item under nine seeds of ten.
    const draw = (which: 0 | 1) =>
      continuous
        ? (shared[which] as number) + 0.3 * random.gaussian()
        : random.uniform() < 0.9
          ? (shared[which] as number)
          : random.integer(2);
    return [1, 2, 3].map((seed) => ({ task: 't', domain: 'd', seed, item: `i${i}`, first: draw(0), second: draw(1) }));
  }).flat();
}

describe('permutation test', () => {
  test.each(reference.exact.map((entry) => [entry.rows.length, entry] as const))(
    'of %i queries, exact, as scipy has it',
    (n, { rows, p, difference, items }) => {
      const result = testRows(rows);
      expect(result).toEqual({
        method: 'exact',
        n,
        items,
        p: expect.closeTo(p, 12),
        difference: expect.closeTo(difference, 12),
      });
    },
  );

  test('of right and wrong answers to one task is exact for any number: the binomial test of McNemar', () => {
    expect(testRows(reference.mcnemar.rows)).toMatchObject({
      method: 'exact',
      p: expect.closeTo(reference.mcnemar.p, 12),
    });
  });

  test('draws signs where they are too many to count, with the same p within what drawing allows', () => {
    const { rows, p, difference, items } = reference.drawn;
    const result = testRows(rows);
    expect(result).toMatchObject({ method: 'monte-carlo', n: 120, items, difference: expect.closeTo(difference, 12) });
    const error = Math.sqrt(p * (1 - p) * (1 / 19_999 + 1 / 1_000_000));
    for (const seed of [0, 1, 2]) expect(Math.abs(testRows(rows, seed).p - p)).toBeLessThan(4 * error);
    expect(new Set([0, 1, 2, 3].map((seed) => testRows(rows, seed).p)).size).toBeGreaterThan(1);
    expect(testRows(rows, 5)).toEqual(testRows(rows, 5));
    // Never 0: the assignment that was observed counts too.
    const far = rows.map((row) => ({ ...row, first: row.first + 50 }));
    expect(testRows(far).p).toBe(1 / 20_000);
  });

  test('keeps its level when conditions are alike, which a test that takes each query by itself does not', () => {
    const random = new Random(3, 'null');
    const shares = { items: [0, 0, 0], queries: [0, 0, 0] };
    const levels = [0.05, 0.2, 0.5];
    const trials = 600;
    for (let trial = 0; trial < trials; trial++) {
      const rows = nullRows(random, 40);
      const p = {
        items: testRows(rows).p,
        queries: testRows(rows.map((r) => ({ ...r, item: `${r.item} ${r.seed}` }))).p,
      };
      for (const [i, level] of levels.entries()) {
        for (const kind of ['items', 'queries'] as const) if (p[kind] <= level) (shares[kind][i] as number)++;
      }
    }
    for (const [i, level] of levels.entries()) {
      const error = Math.sqrt((level * (1 - level)) / trials);
      const found = (shares.items[i] as number) / trials;
      expect(found).toBeLessThan(level + 3 * error);
      expect(found).toBeGreaterThan(level / 2); // few values of p are possible, so that it falls a little short
    }
    expect((shares.queries[0] as number) / trials).toBeGreaterThan(0.12);
  });

  test.each([
    ['exact', 10, 400],
    ['monte-carlo', 19, 200],
  ])('p is uniform when conditions are alike (%s)', (method, items, trials) => {
    const random = new Random(8, 'uniform', method);
    const ps = Array.from({ length: trials }, () => {
      const result = testRows(nullRows(random, items, true));
      expect(result.method).toBe(method);
      return result.p;
    }).sort((a, b) => a - b);
    // Largest distance from the uniform distribution (Kolmogorov and Smirnov), whose 1 % point is 1.63 / sqrt(n).
    const distance = Math.max(...ps.map((p, i) => Math.max(Math.abs(p - i / trials), Math.abs(p - (i + 1) / trials))));
    expect(distance).toBeLessThan(1.63 / Math.sqrt(trials));
  });

  test('depends neither on order, nor on which condition comes first, nor on the unit of the scores', () => {
    const random = new Random(5, 'order');
    for (const { rows } of [...reference.exact, reference.drawn]) {
      const { p, difference } = testRows(rows);
      const first = side(random.sample(rows), 'first');
      const second = side(random.sample(rows), 'second');
      expect(permutationTest(first, second).p).toBe(p);
      expect(permutationTest(second, first)).toMatchObject({ p, difference: expect.closeTo(-difference, 12) });
      const scaled = rows.map((row) => ({ ...row, first: 1e-6 * row.first, second: 1e-6 * row.second }));
      expect(testRows(scaled).p).toBeCloseTo(p, 12);
    }
  });

  test('of a condition with itself gives p = 1', () => {
    for (const { rows } of [...reference.exact, reference.drawn]) {
      const same = side(rows, 'first');
      expect(permutationTest(same, same)).toMatchObject({ difference: 0, p: 1, method: 'exact' });
    }
  });

  test('is no surer of items that are scored again', () => {
    const rows = reference.mcnemar.rows;
    const thrice = [1, 2, 3].flatMap((seed) => rows.map((row) => ({ ...row, seed })));
    expect(testRows(thrice).p).toBeCloseTo(testRows(rows).p, 12);
  });

  test('needs the same queries on both sides, and some', async () => {
    const [one] = reference.exact as [(typeof reference.exact)[number]];
    const all = side(one.rows, 'first');
    await expectError(() => permutationTest(all, all.slice(1)), 'INVALID_ARGUMENT', /both conditions have/);
    await expectError(() => permutationTest(all.slice(1), all), 'INVALID_ARGUMENT', /both conditions have/);
    await expectError(() => permutationTest([], []), 'INVALID_ARGUMENT', /no scored queries/);
  });
});

describe('Holm correction', () => {
  test.each(reference.holm)('of $p as statsmodels has it', ({ p, adjusted }) => {
    expect(holm(p)).toEqual(adjusted.map((value) => expect.closeTo(value, 12)));
  });

  test('of a family of comparisons', async () => {
    const pairs = [...reference.exact, reference.mcnemar].map(({ rows }) => ({
      first: side(rows, 'first'),
      second: side(rows, 'second'),
    }));
    const results = compareFamily(pairs);
    expect(results.map(({ p }) => p)).toEqual(pairs.map(({ first, second }) => permutationTest(first, second).p));
    expect(results.map(({ adjusted }) => adjusted)).toEqual(holm(results.map(({ p }) => p)));
    expect(compareFamily([])).toEqual([]);
    for (const p of [-0.1, 1.1, Number.NaN])
      await expectError(() => holm([0.5, p]), 'INVALID_ARGUMENT', /not a p-value/);
  });

  test('keeps the chance of any false finding among ten at its level, which bare p-values do not', () => {
    const random = new Random(6, 'family');
    let any = 0;
    let bare = 0;
    for (let trial = 0; trial < 150; trial++) {
      const pairs = Array.from({ length: 10 }, () => {
        const rows = nullRows(random, 11, true);
        return { first: side(rows, 'first'), second: side(rows, 'second') };
      });
      const results = compareFamily(pairs);
      if (results.some(({ adjusted }) => adjusted <= 0.05)) any++;
      if (results.some(({ p }) => p <= 0.05)) bare++;
    }
    expect(any / 150).toBeLessThan(0.05 + 3 * Math.sqrt((0.05 * 0.95) / 150));
    expect(any).toBeGreaterThan(0);
    expect(bare / 150).toBeGreaterThan(0.25);
  });
});

describe('intervals', () => {
  test.each(reference.wilson)('of $successes in $n as scipy has it', ({ successes, n, low, high }) => {
    expect(wilsonInterval(successes, n)).toEqual({ low: expect.closeTo(low, 12), high: expect.closeTo(high, 12) });
  });

  test('bootstrap of items under several seeds as scipy has it', () => {
    const { sums, counts, low, high } = reference.bootstrap;
    const observations = sums.flatMap((sum, item) =>
      Array.from({ length: counts[item] as number }, (_, seed) => ({
        task: 't',
        seed,
        item: `${item}`,
        value: seed < sum ? 1 : 0,
      })),
    );
    const found = bootstrapInterval(observations);
    expect(Math.abs(found.low - low)).toBeLessThan(0.015);
    expect(Math.abs(found.high - high)).toBeLessThan(0.015);
  });

  test('do not depend on the order of the observations', () => {
    const random = new Random(5, 'order');
    const [, { rows }] = reference.exact as [unknown, { rows: Row[] }];
    const [first, second] = [side(rows, 'first'), side(rows, 'second')];
    expect(bootstrapInterval(random.sample(first))).toEqual(bootstrapInterval(first));
    expect(differenceInterval(random.sample(first), random.sample(second))).toEqual(differenceInterval(first, second));
  });
});
