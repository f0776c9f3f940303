import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { openReference } from '../../src/studies/model-reference.js';
import { compareRows, within } from '../../src/studies/verify-model.js';
import { writeSafetensors } from '../../src/util/safetensors.js';
import { temporaryFolder } from './helpers.js';

const folder = await temporaryFolder();
let files = 0;

const floats = (...shape: number[]) => ({
  dtype: 'F32' as const,
  shape,
  data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => i),
});
const tokens = (n: number) => ({ dtype: 'I32' as const, shape: [n], data: new Int32Array(n) });
const GOOD = { '0.tokens': tokens(2), '0.states': floats(3, 2, 4), '0.logits': floats(8) };
const prompts = (...parts: unknown[]) => JSON.stringify([{ parts, embeddings: [] }]);

async function open(tensors: Parameters<typeof writeSafetensors>[1], metadata: Record<string, string>) {
  const path = join(folder, `${files++}.safetensors`);
  await writeSafetensors(path, tensors, { 'xpatch.reference': '1', prompts: prompts({ tokens: [0, 1] }), ...metadata });
  await using reference = await openReference(path);
  return await reference.read(0);
}

describe('a reference', () => {
  test('is read', async () => {
    const { parts, states, logits, embeddings } = await open(GOOD, {});
    expect(parts).toEqual([{ tokens: [0, 1] }]);
    expect(states.shape).toEqual([3, 2, 4]);
    expect([states.data.length, logits.length, embeddings.length]).toEqual([24, 8, 0]);
  });

  test.each<[string, Parameters<typeof writeSafetensors>[1], Record<string, string>, RegExp]>([
    ['of another kind', GOOD, { 'xpatch.reference': '2' }, /xpatch\.reference 1/],
    ['without JSON', GOOD, { prompts: '[' }, /not JSON/],
    ['without prompts', GOOD, { prompts: '[]' }, /list of prompts/],
    ['with a part of nothing', GOOD, { prompts: prompts({}) }, /list of prompts/],
    ['with tokens that are none', GOOD, { prompts: prompts({ tokens: [-1] }) }, /list of prompts/],
    ['with a part that is null', GOOD, { prompts: prompts(null) }, /list of prompts/],
    ['without states', { '0.tokens': tokens(2), '0.logits': floats(8) }, {}, /"0\.states" does not fit/],
    ['with flat states', { ...GOOD, '0.states': floats(24) }, {}, /"0\.states" does not fit/],
    ['with fewer tokens', { ...GOOD, '0.tokens': tokens(1) }, {}, /not the 2 positions/],
    ['with a picture of floats', { ...GOOD, p: floats(2, 2, 3) }, { prompts: prompts({ picture: 'p' }) }, /not RGB/],
  ])('%s is refused', async (_, tensors, metadata, why) => {
    await expect(open(tensors, metadata)).rejects.toMatchObject({
      code: 'REFERENCE_INVALID',
      message: expect.stringMatching(why),
    });
  });
});

describe('differences', () => {
  const bounds = { cosine: 0.9, magnitude: 0.1, nmse: 0.1 };

  test('of the worst row; magnitude and squared error', () => {
    const same = compareRows(Float32Array.of(1, 0, 0, 2), Float32Array.of(1, 0, 0, 2), 2);
    expect(same).toEqual({ cosine: 1, magnitude: 1, nmse: 0 });
    const turned = compareRows(Float32Array.of(1, 0, 3, 0), Float32Array.of(1, 0, 0, 2), 2);
    expect(turned).toEqual({ cosine: 0, magnitude: 1.5, nmse: 13 / 5 });
    expect([within(same, bounds), within(turned, bounds)]).toEqual([true, false]);
  });

  test('that are not numbers are out of bounds', () => {
    const broken = compareRows(Float32Array.of(Number.NaN, 1, 1, 1), Float32Array.of(1, 1, 1, 1), 2);
    expect(broken.cosine).toBeNaN();
    expect(within(broken, bounds)).toBe(false);
  });

  test('in the number of rows are refused', () => {
    expect(() => compareRows(new Float32Array(4), new Float32Array(6), 2)).toThrow(/3 rows of 2, the model 2/);
  });
});
