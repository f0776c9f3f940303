// That the checks of a device can fail: each with numbers that a device may get wrong.
import { beforeAll, expect, test } from '@jest/globals';
import { differences, type Measured, measureOn, type Rows } from './device.js';

let right: Measured;
beforeAll(async () => {
  right = await measureOn('cpu', 'llama');
});

const wrong = ({ data, width }: Rows, change: (x: number, i: number) => number): Rows => ({
  data: data.map(change),
  width,
});
const failed = (measured: Measured) =>
  Object.entries(differences(measured, right)).flatMap(([check, found]) => (found.length ? [check] : []));

test('the CPU is like itself', () => {
  expect(failed(right)).toEqual([]);
});

test.each([
  ['states', 'states and logits, patched ones too, equal those of the CPU'],
  ['logits', 'states and logits, patched ones too, equal those of the CPU'],
  ['sweep', 'the sweep equals the naive one'],
  ['deltas', 'states and logits, patched ones too, equal those of the CPU'],
  ['same', 'a state patched onto itself changes no bit'],
  ['normed', 'the lens and the final norm equal those of the CPU'],
  ['lenses', 'the lens and the final norm equal those of the CPU'],
  ['cut', 'attention that is cut equals that of the CPU'],
  ['scored', 'attention that is cut equals that of the CPU'],
] as const)('%s a tenth too large, or NaN, or too few', (field, check) => {
  const { data, width } = right[field];
  const others = [wrong(right[field], (x) => 1.1 * x), wrong(right[field], (x, i) => (i === 0 ? Number.NaN : x))];
  for (const other of others) expect(failed({ ...right, [field]: other })).toContain(check);
  if (field !== 'same') expect(failed({ ...right, [field]: { data: data.subarray(width), width } })).toContain(check);
});

test('one point, nothing that is cut, nothing generated', () => {
  const [[hook, rows]] = Object.entries(right.points) as [[string, Rows]];
  const points = { ...right.points, [hook]: wrong(rows, (x) => -x) };
  expect(failed({ ...right, points })).toEqual(['every point equals that of the CPU']);
  const { uncut } = right;
  expect(failed({ ...right, cut: uncut, scored: uncut })).toEqual(['attention that is cut equals that of the CPU']);
  expect(failed({ ...right, generated: 0 })).toEqual(['the sweep equals the naive one']);
});
