import { describe, expect, test } from '@jest/globals';
import { Divergences, twinOf } from '../../src/experiment/divergence.js';
import type { Condition } from '../../src/experiment/types.js';
import { divergence } from '../../src/model/tracked.js';

const OWN: Condition = { name: 'own', kind: 'patch', spec: 'text' };
const FOREIGN: Condition = { name: 'foreign', kind: 'patch', spec: 'text', foreign: true };

describe('divergence of a foreign vector', () => {
  test('by hand: a fair coin from one of three to one', () => {
    const expected = 0.5 * Math.log(0.5 / 0.75) + 0.5 * Math.log(0.5 / 0.25);
    expect(divergence(Float32Array.of(7, 7), Float32Array.of(Math.log(3), 0))).toBeCloseTo(expected, 6);
    expect(divergence(Float32Array.of(1, 2, 3), Float32Array.of(11, 12, 13))).toBeCloseTo(0, 6);
    // A token that one of both never says.
    expect(divergence(Float32Array.of(0, Number.NEGATIVE_INFINITY), Float32Array.of(0, 0))).toBeCloseTo(Math.log(2), 6);
  });

  test('the twin differs in nothing but where the vector comes from', () => {
    const others: Condition[] = [
      { ...OWN, name: 'fewer', prompts: 2 },
      { ...OWN, name: 'control', control: 'random-vector' },
      { ...OWN, name: 'image', query: 'image' },
    ];
    expect(twinOf([...others, OWN, FOREIGN], FOREIGN)).toBe(OWN);
    expect(twinOf([...others, FOREIGN], FOREIGN)).toBeUndefined();
    expect(twinOf([OWN, FOREIGN], OWN)).toBeUndefined();
    expect(twinOf([OWN, { ...FOREIGN, control: 'wrong-task' }], { ...FOREIGN, control: 'wrong-task' })).toBeUndefined();
  });

  test('pairs rows by item and layer, in whatever order they come', () => {
    const found = new Divergences([OWN, FOREIGN]);
    const row = (condition: Condition, input: string, layer: number) => ({ condition, item: { input }, layer });
    found.add(0, row(FOREIGN, 'a', 1), Float32Array.of(0, 0));
    found.add(1, row(OWN, 'b', 1), Float32Array.of(0, 0));
    found.add(2, row(OWN, 'a', 2), Float32Array.of(9, 0));
    found.add(3, row(OWN, 'a', 1), Float32Array.of(5, 5));
    found.add(4, row({ name: 'bare', kind: 'bare' }, 'a', 1), Float32Array.of(0, 0));
    expect(found.found).toEqual([[0, expect.closeTo(0, 6)]]);
  });
});
