import { describe, expect, test } from '@jest/globals';
import { lenientMatch, majorityAnswer, strictMatch } from '../../src/experiment/scoring.js';
import {
  bootstrapInterval,
  differenceInterval,
  type Observation,
  spreadOverSeeds,
  wilsonInterval,
} from '../../src/stats/statistics.js';
import { accuracyTable, type ScoredQuery } from '../../src/stats/tables.js';
import { Random } from '../../src/util/random.js';
import { expectError } from './helpers.js';

describe('scoring', () => {
  test.each<[string, string, boolean]>([
    ['Lima', 'Lima', true],
    [' Lima\n', 'Lima', true],
    ['L', 'Lima', true],
    ['Lima, Peru', 'Lima', true],
    ['lima', 'Lima', false],
    ['', 'Lima', false],
    [' ', 'Lima', false],
    ['Lyon', 'Lima', false],
    ['ima', 'Lima', false],
  ])('lenient: %j for %j is %s', (answer, expected, right) => {
    expect(lenientMatch(answer, expected)).toBe(right);
  });

  test.each<[string, string, boolean]>([
    ['Lima\n\nQ:Chad', 'Lima', false],
    [' Lima \r\n', 'Lima', true],
    ['Lima', 'Lima', true],
    ['L', 'Lima', false],
    ['Lima, Peru', 'Lima', false],
    ['\nLima', 'Lima', true],
    ['', '', false],
    ['Panthera leo\n', 'Panthera leo', true],
    ['Panthera', 'Panthera leo', false],
    ['Yaounde\u0301', 'Yaound\u00e9', true],
  ])('strict: %j for %j is %s', (continuation, expected, right) => {
    expect(strictMatch(continuation, expected)).toBe(right);
  });

  test('case counts unless told otherwise', () => {
    expect(strictMatch('red\n', 'Red')).toBe(false);
    expect(strictMatch('red\n', ['Red', 'red'])).toBe(true);
    expect([lenientMatch('cri', ['Red', 'crimson']), lenientMatch('cri', ['Red', 'blue'])]).toEqual([true, false]);
    expect(strictMatch('red\n', 'Red', { ignoreCase: true })).toBe(true);
    expect(lenientMatch('RE', 'red', { ignoreCase: true })).toBe(true);
  });

  test('majority answer: the most frequent, the first of a tie, none of nothing', () => {
    const answers = (...outputs: string[]) => majorityAnswer(outputs.map((output) => ({ output })));
    expect(answers('red', 'green', 'green', 'red', 'green')).toBe('green');
    expect(answers('red', 'green', 'green', 'red')).toBe('red');
    expect(answers()).toBeUndefined();
  });
});

describe('Wilson interval', () => {
  // Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998), table I, method 3.
  test.each([
    [81, 263, 0.2553, 0.3662],
    [15, 148, 0.0624, 0.1605],
    [0, 20, 0, 0.1611],
    [1, 29, 0.0061, 0.1718],
  ])('of %i in %i is as published', (successes, n, low, high) => {
    const interval = wilsonInterval(successes, n);
    expect(interval.low).toBeCloseTo(low, 4);
    expect(interval.high).toBeCloseTo(high, 4);
  });

  test('equals scipy 1.17.1: binomtest(k, n).proportion_ci(method="wilson")', () => {
    expect(wilsonInterval(37, 100).low).toBeCloseTo(0.28182360534324535, 12);
    expect(wilsonInterval(37, 100).high).toBeCloseTo(0.4677947041905709, 12);
    expect(wilsonInterval(60, 60)).toEqual({ low: expect.closeTo(0.9398281478579101, 12), high: 1 });
  });

  test('refuses what is not a proportion', async () => {
    for (const [k, n] of [
      [0, 0],
      [5, 4],
      [-1, 4],
      [Number.NaN, 4],
      [1, 2.5],
    ] as const) {
      await expectError(() => wilsonInterval(k, n), 'INVALID_ARGUMENT', /not a proportion/);
    }
  });
});

const observation = (item: number | string, value: number, change: Partial<Observation> = {}): Observation => ({
  task: 'capital',
  domain: 'country',
  seed: 1,
  item: String(item),
  share: true,
  value,
  ...change,
});

describe('bootstrap interval', () => {
  test('of independent queries is as scipy has it', () => {
    // scipy 1.17.1: stats.bootstrap((x,), mean, method="percentile", n_resamples=100000) for 22 ones and 38 zeros: 0.25, 0.4833.
    const observations = Array.from({ length: 60 }, (_, i) => observation(i, i < 22 ? 1 : 0));
    const { value, low, high, n, items } = bootstrapInterval(observations);
    expect({ value, n, items }).toEqual({ value: 22 / 60, n: 60, items: 60 });
    expect(Math.abs(low - 0.25)).toBeLessThan(0.017);
    expect(Math.abs(high - 0.4833)).toBeLessThan(0.017);
  });

  test('of items under one to three seeds is as numpy has it', () => {
    // numpy 2.4.6, 200000 resamples of whole items, default_rng(1): 0.4151, 0.6607.
    const observations = Array.from({ length: 30 }, (_, i) =>
      Array.from({ length: 1 + (i % 3) }, (_, s) =>
        observation(i, (i * 7 + s * 3) % 5 < 2 || i % 4 === 0 ? 1 : 0, { seed: s }),
      ),
    ).flat();
    const { value, low, high, n, items } = bootstrapInterval(observations);
    expect({ value, n, items }).toEqual({ value: expect.closeTo(0.5333333, 6), n: 60, items: 30 });
    expect(Math.abs(low - 0.4151)).toBeLessThan(0.015);
    expect(Math.abs(high - 0.6607)).toBeLessThan(0.015);
  });

  test('the same items scored again under other seeds add no certainty', () => {
    const once = Array.from({ length: 40 }, (_, i) => observation(i, i % 3 === 0 ? 1 : 0));
    const thrice = [1, 2, 3].flatMap((seed) => once.map((o) => ({ ...o, seed })));
    const { low, high, n, items } = bootstrapInterval(thrice);
    expect({ low, high }).toEqual({ low: bootstrapInterval(once).low, high: bootstrapInterval(once).high });
    expect({ n, items }).toEqual({ n: 120, items: 40 });
  });

  test('tasks of one domain go together, tasks of two domains are independent', () => {
    const first = Array.from({ length: 100 }, (_, i) => observation(i, i % 2));
    const second = (domain: string) => first.map((o) => ({ ...o, task: 'currency', domain }));
    const width = ({ low, high }: { low: number; high: number }) => high - low;
    const one = width(bootstrapInterval(first));
    expect(width(bootstrapInterval([...first, ...second('country')]))).toBeCloseTo(one, 12);
    const independent = width(bootstrapInterval([...first, ...second('food')]));
    expect(independent / one).toBeGreaterThan(0.64);
    expect(independent / one).toBeLessThan(0.78);
  });

  test('the mean gives every task the same weight', () => {
    const many = Array.from({ length: 90 }, (_, i) => observation(i, 1));
    const few = Array.from({ length: 10 }, (_, i) => observation(i, 0, { task: 'flavor', domain: 'food' }));
    expect(bootstrapInterval([...many, ...few]).value).toBe(0.5);
  });

  test('has a width where all answers are right or wrong', () => {
    const all = (value: number) => Array.from({ length: 60 }, (_, i) => observation(i % 20, value, { seed: i }));
    expect(bootstrapInterval(all(0))).toMatchObject({ value: 0, low: 0, high: wilsonInterval(0, 20).high });
    expect(bootstrapInterval(all(1))).toMatchObject({ value: 1, low: 1 - wilsonInterval(0, 20).high, high: 1 });
  });

  test('has the width of Wilson wherever resampling whole items has none', () => {
    // Wilson's limits are where a true share would be 1.96 standard errors from what was observed.
    const errors = (p: number, limit: number, n: number) => Math.abs(p - limit) / Math.sqrt((limit * (1 - limit)) / n);
    const scored = (items: number, bySeed: readonly number[]) =>
      Array.from({ length: items }, (_, i) => bySeed.map((value, seed) => observation(i, value, { seed }))).flat();
    const cases: [items: number, bySeed: number[]][] = [
      [10, [1, 0]],
      [1, [1, 0, 1]],
      [7, [0.2, 0.3, 0.4]],
    ];
    for (const [items, bySeed] of cases) {
      const { value, low, high } = bootstrapInterval(scored(items, bySeed));
      expect(value).toBeCloseTo(bySeed.reduce((a, b) => a + b, 0) / bySeed.length, 12);
      expect(low).toBeLessThan(value);
      expect(high).toBeGreaterThan(value);
      for (const limit of [low, high]) expect(errors(value, limit, items)).toBeCloseTo(1.96, 3);
    }
  });

  test('of probabilities however small is that of the bootstrap while they differ', () => {
    const { low, high } = bootstrapInterval(
      Array.from({ length: 20 }, (_, i) => observation(i, (1 + (i % 3)) * 1e-15)),
    );
    expect(low).toBeGreaterThan(1e-15);
    expect(high).toBeLessThan(3e-15);
  });

  test.each([-1, 0, 1, 0.1, 3, -12.5])('of other scores that are all %d is that number', (value) => {
    // Of the first item more seeds, so that sums in another order differ in their last bits.
    const scores = Array.from({ length: 30 }, (_, i) => observation(i % 7, value, { seed: i, share: false }));
    const { value: found, low, high } = bootstrapInterval(scores);
    expect([found, low, high]).toEqual([value, value, value].map((x) => expect.closeTo(x, 12)));
    expect(low).toBeLessThanOrEqual(found);
    expect(high).toBeGreaterThanOrEqual(found);
    const twoTasks = scores.flatMap((o) => [o, { ...o, task: 'other', value: value / 3 }]);
    const other = bootstrapInterval(twoTasks);
    expect([other.low, other.high]).toEqual([other.value, other.value].map((x) => expect.closeTo(x, 12)));
    expect([other.low <= other.value, other.value <= other.high]).toEqual([true, true]);
    // What is called a share but is none
    if (Math.abs(value) > 1) expect(bootstrapInterval(scores.map((o) => ({ ...o, share: true }))).high).toBe(high);
  });

  test('holds its value, even where most resamples lack a task of few items', () => {
    // In each of 20 domains one task of 50 items is all wrong, and one of a single item is right.
    const observations = Array.from({ length: 20 }, (_, d) => [
      ...Array.from({ length: 50 }, (_, i) => observation(i, 0, { task: `many${d}`, domain: `${d}` })),
      observation(0, 1, { task: `one${d}`, domain: `${d}` }),
    ]).flat();
    const { value, low, high } = bootstrapInterval(observations);
    expect([value, high]).toEqual([0.5, 0.5]);
    expect(low).toBeLessThan(0.5);
  });

  test('covers the truth about as often as it says', () => {
    // Items of differing difficulty under three seeds; 300 simulated tables. Nominal 95 %; the percentile bootstrap with 40
    // items is known to fall a little short. An interval that ignored the items would cover in about 75 %.
    const random = new Random(4, 'coverage');
    let covered = 0;
    for (let trial = 0; trial < 300; trial++) {
      const observations = Array.from({ length: 40 }, (_, i) => {
        const difficulty = random.uniform() < 0.5 ? 0.1 : 0.7;
        return [1, 2, 3].map((seed) => observation(i, random.uniform() < difficulty ? 1 : 0, { seed }));
      }).flat();
      const { low, high } = bootstrapInterval(observations, trial);
      if (low <= 0.4 && 0.4 <= high) covered++;
    }
    expect(covered / 300).toBeGreaterThan(0.9);
    expect(covered / 300).toBeLessThan(0.99);
  });

  test('is repeatable, depends on its seed, and needs observations', async () => {
    const observations = Array.from({ length: 37 }, (_, i) =>
      observation(i, (i * i) % 3 === 1 ? 1 : 0, { seed: i % 4 }),
    );
    expect(bootstrapInterval(observations, 1)).toEqual(bootstrapInterval(observations, 1));
    const means = [1, 2, 3, 4, 5, 6].map((seed) => JSON.stringify(bootstrapInterval(observations, seed)));
    expect(new Set(means).size).toBeGreaterThan(1);
    await expectError(() => bootstrapInterval([]), 'INVALID_ARGUMENT', /no scored queries/);
  });
});

describe('difference of conditions', () => {
  test('is paired by query, as scipy has it', () => {
    // scipy 1.17.1, percentile bootstrap of the 60 differences (15 times +1, 5 times -1): 0.0333, 0.3.
    const patch = Array.from({ length: 60 }, (_, i) => observation(i, i < 30 || (i >= 40 && i < 55) ? 1 : 0));
    const prompt = Array.from({ length: 60 }, (_, i) => observation(i, i < 30 || i >= 55 ? 1 : 0)).reverse();
    const { value, low, high } = differenceInterval(patch, prompt);
    expect(value).toBeCloseTo(1 / 6, 12);
    expect(Math.abs(low - 0.0333)).toBeLessThan(0.017);
    expect(Math.abs(high - 0.3)).toBeLessThan(0.017);
    expect(differenceInterval(prompt, patch).value).toBeCloseTo(-1 / 6, 12);
  });

  test('keeps its bounds when all pairs are alike', () => {
    const all = (value: number) => Array.from({ length: 20 }, (_, i) => observation(i, value));
    const width = wilsonInterval(0, 20).high;
    expect(differenceInterval(all(1), all(0))).toMatchObject({ value: 1, low: 1 - width, high: 1 });
    expect(differenceInterval(all(0), all(1))).toMatchObject({ value: -1, low: -1, high: width - 1 });
    expect(differenceInterval(all(1), all(1))).toMatchObject({ value: 0, low: -width, high: width });
  });

  test('has that width too where a difference of all items is that of one seed', () => {
    const of = (second: number) =>
      Array.from({ length: 40 }, (_, i) => observation(i % 20, i < 20 ? 1 : second, { seed: i < 20 ? 1 : 2 }));
    const width = wilsonInterval(0, 20).high;
    expect(differenceInterval(of(1), of(0))).toMatchObject({ value: 0.5, low: 0.5 - width, high: 0.5 + width });
  });

  test('of scores that are not shares has no bounds', () => {
    const all = (value: number) => Array.from({ length: 20 }, (_, i) => observation(i, value, { share: false }));
    expect(differenceInterval(all(1), all(4))).toMatchObject({ value: -3, low: -3, high: -3 });
    expect(differenceInterval(all(5), all(5))).toMatchObject({ value: 0, low: 0, high: 0 });
    const mixed = all(0).map((o, i) => ({ ...o, value: i }));
    expect(differenceInterval(mixed, all(5)).high).toBeGreaterThan(4.5);
  });

  test('refuses queries without a partner', async () => {
    const two = [observation('Peru', 1), observation('Chad', 0)];
    await expectError(
      () => differenceInterval(two, two.slice(0, 1)),
      'INVALID_ARGUMENT',
      /Chad of capital under seed 1/,
    );
    await expectError(() => differenceInterval(two.slice(0, 1), two), 'INVALID_ARGUMENT', /both conditions/);
  });
});

describe('spread over seeds', () => {
  test('is the sample standard deviation of the means', () => {
    const scores = [
      [1, 1, 1, 1],
      [1, 1, 0, 0],
      [1, 0, 0, 0],
    ];
    const observations = scores.flatMap((values, s) =>
      values.map((value, i) => observation(i, value, { seed: 3 - s })),
    );
    const { perSeed, sd } = spreadOverSeeds(observations);
    expect(perSeed).toEqual([
      { seed: 1, value: 0.25 },
      { seed: 2, value: 0.5 },
      { seed: 3, value: 1 },
    ]);
    // statistics.stdev([0.25, 0.5, 1]) of Python 3
    expect(sd).toBeCloseTo(0.3818813079129867, 12);
    expect(spreadOverSeeds([observation(1, 1)]).sd).toBeUndefined();
  });
});

describe('accuracy table', () => {
  const query = (condition: string, task: string, seed: number, item: number, right: boolean): ScoredQuery => ({
    condition,
    task,
    domain: task,
    seed,
    item: `${item}`,
    lenient: true,
    strict: right,
  });
  const queries = [1, 2].flatMap((seed) =>
    Array.from({ length: 10 }, (_, i) => [
      query('Patch', 'color', seed, i, i < 8),
      query('Patch', 'flavor', seed, i, i < 4),
      query('Prompt', 'color', seed, i, i < 2),
    ]).flat(),
  );

  test('has rows, columns, their mean, and says what they are', async () => {
    const conditions = ['No Context', 'Prompt', 'Patch'];
    const table = await accuracyTable(queries, { title: 'T', score: 'strict', conditions, notes: ['First.'] });
    expect(table.columns).toEqual(['color', 'flavor', 'mean']);
    expect(table.rows.map((row) => row.label)).toEqual(conditions);
    const values = table.rows.map((row) => row.cells.map((cell) => cell?.value));
    expect(values[0]).toEqual([undefined, undefined, undefined]);
    expect(values[1]).toEqual([0.2, undefined, undefined]);
    expect(values[2]).toEqual([0.8, 0.4, expect.closeTo(0.6, 12)]);
    expect(table.rows[2]?.cells[0]).toMatchObject({ n: 20, items: 10 });
    expect(table.notes[0]).toBe('First.');
    expect(table.notes.join('\n')).toMatch(
      /whole greedy answer[\s\S]*seeds 1, 2 held fixed[\s\S]*color 20 \(10 items\), flavor 20/,
    );
  });

  test('takes the other score when asked', async () => {
    const table = await accuracyTable(queries, { title: 'T', score: 'lenient' });
    expect(table.rows.map((row) => row.cells[0]?.value)).toEqual([1, 1]);
    const once = await accuracyTable(
      queries.filter(({ seed }) => seed === 1),
      { title: 'T', score: 'lenient' },
    );
    expect(once.notes.join('\n')).toContain('over items, seed 1 held fixed.');
    expect(table.notes.join('\n')).toMatch(/one is a prefix of the other/);
  });
});
