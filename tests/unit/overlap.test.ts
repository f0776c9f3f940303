import { expect, test } from '@jest/globals';
import { type Measured, topOverlap } from '../../src/stats/overlap.js';

const things = 20;
/** Things in an order, alike in all measurements. */
const values = (best: readonly number[]) =>
  Array.from({ length: 5 }, () => Array.from({ length: things }, (_, i) => (best.includes(i) ? 1 : 0) - i / 1000));
const measured = (values: number[][], domain = 'animals'): Measured => ({
  values,
  domain,
  items: ['a', 'b', 'c', 'd', 'e'],
});
const ordered = (best: readonly number[]) => measured(values(best));

test('the same best things overlap wholly, others not at all, without doubt where measurements agree', () => {
  const same = topOverlap([[ordered([3, 7, 9]), ordered([9, 3, 7])]], 3);
  expect(same).toMatchObject({ value: 3, low: 3, high: 3, chance: 9 / 20 });
  expect(same.p).toBeLessThan(0.005); // 1 of 1140 orders
  const none = topOverlap([[ordered([3, 7, 9]), ordered([10, 11, 12])]], 3);
  expect(none).toMatchObject({ value: 0, low: 0, high: 0, p: 1 });
});

test('pairs are averaged, and p is the hypergeometric tail', () => {
  const half = topOverlap(
    [
      [ordered([3, 7, 9]), ordered([9, 3, 7])],
      [ordered([3, 7, 9]), ordered([10, 11, 12])],
    ],
    3,
  );
  expect(half.value).toBe(1.5);
  const one = topOverlap([[ordered([3, 7, 9]), ordered([3, 11, 12])]], 3);
  // 1 - C(17, 3) / C(20, 3)
  expect(one.p).toBeCloseTo(1 - 680 / 1140, 1);
});

test('where measurements disagree the interval says so', () => {
  const mixed = measured([...values([3, 7, 9]).slice(0, 3), ...values([10, 11, 12]).slice(0, 2)]);
  const { value, low, high } = topOverlap([[ordered([3, 7, 9]), mixed]], 3);
  // Of five items drawn from these, 3 or more are among the first three with a probability of .68256: then 3 are in both, else none.
  const error = 3 * Math.sqrt(0.68256 * 0.31744);
  expect([value, high]).toEqual([3, 3]);
  expect(low).toBeCloseTo(3 - 1.96 * error, 0);
  // In the mean over 20 such pairs of domains of their own, nearly all resamples have less than the 3 that are measured.
  const many = topOverlap(
    Array.from({ length: 20 }, (_, d) => [
      { ...ordered([3, 7, 9]), domain: `${d}` },
      { ...mixed, domain: `${d}` },
    ]),
    3,
  );
  expect([many.value, many.high]).toEqual([3, 3]);
  expect(many.low).toBeCloseTo(3 - (1.96 * error) / Math.sqrt(20), 1);
});

test('pairs of the same things get the same random order, so that several say no more than one', () => {
  const pair = [ordered([3, 7, 9]), ordered([3, 11, 12])] as const;
  expect(topOverlap([pair, pair, pair, pair], 3).p).toBeCloseTo(1 - 680 / 1140, 1);
});

test('tasks of one domain are drawn together, so that two of them say no more than one', () => {
  const half = (domain: string): [Measured, Measured] => [
    measured(values([3, 7, 9]), domain),
    measured([...values([3, 7, 9]).slice(0, 3), ...values([10, 11, 12]).slice(0, 2)], domain),
  ];
  const alone = topOverlap([half('animals')], 3);
  const twins = topOverlap([half('animals'), half('animals')], 3);
  expect([twins.low, twins.high]).toEqual([alone.low, alone.high]);
  const strangers = topOverlap([half('animals'), half('foods'), half('flags'), half('plants')], 3);
  expect(strangers.low).toBeGreaterThan(alone.low);
});
