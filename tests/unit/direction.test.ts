import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { meanDifference, principalDifference } from '../../src/stats/direction.js';

const reference: Record<'positive' | 'negative', number[][]> & Record<'mean' | 'pca', number[]> = JSON.parse(
  readFileSync(new URL('../fixtures/directions.json', import.meta.url), 'utf8'),
);
const points = (rows: number[][]) => rows.map((row) => Float32Array.from(row));
const [positive, negative] = [points(reference.positive), points(reference.negative)];

test.each([
  ['mean', meanDifference],
  ['pca', principalDifference],
] as const)('%s is what numpy makes of the same points', (name, direction) => {
  const ours = direction(positive, negative);
  for (const [i, wanted] of reference[name].entries()) expect(ours[i]).toBeCloseTo(wanted, 9);
});

test('the principal direction turns round with its pairs, and is as long as 1', () => {
  const there = principalDifference(positive, negative);
  const back = principalDifference(negative, positive);
  for (const [i, x] of there.entries()) expect(back[i]).toBeCloseTo(-x, 12);
  expect(Math.hypot(...there)).toBeCloseTo(1, 12);
});

test('one pair has the direction of its difference', () => {
  const [one, other] = [[Float32Array.of(3, 0, 4)], [Float32Array.of(0, 0, 0)]];
  expect([...principalDifference(one, other)]).toEqual([0.6, 0, 0.8].map((x) => expect.closeTo(x, 12)));
  expect([...meanDifference(one, other)]).toEqual([3, 0, 4]);
});
