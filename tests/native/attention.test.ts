// Flash attention of many rows, and rows of a batch that differ by their interventions alone, against the same work done in
// another way: every shape of tile, heads that share keys, prompts of which each sees only itself, all numbers of threads.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { makeModel } from '../../bench/make-model.mjs';
import { readGgufHeader } from '../../src/gguf/gguf.js';
import type { Context } from '../../src/model/context.js';
import { loadModel } from '../../src/model/load-model.js';
import type { PassRow } from '../../src/model/pass.js';
import { temporaryFolder } from '../unit/helpers.js';
import { randomVector, statesOf } from './helpers.js';

const folder = await temporaryFolder();

const tokens = (n: number, from: number) => Array.from({ length: n }, (_, i) => (from + 97 * i) % 49152);

/** The largest difference of a state from what it should be, as a part of its norm. */
function apart(found: readonly Float32Array[], wanted: readonly Float32Array[]): number {
  const width = 576;
  let worst = 0;
  for (const [r, want] of wanted.entries()) {
    const have = found[r] as Float32Array;
    expect(have).toHaveLength(want.length);
    for (let at = 0; at < want.length; at += width) {
      let [difference, size] = [0, 0];
      for (let i = at; i < at + width; i++) {
        difference += ((have[i] as number) - (want[i] as number)) ** 2;
        size += (want[i] as number) ** 2;
      }
      worst = Math.max(worst, Math.sqrt(difference / size));
    }
  }
  return worst;
}

const allStates = async (context: Context, rows: PassRow[]) =>
  (await context.pass(rows.map((row) => ({ ...row, capture: 'all' as const })))).map(statesOf);

// Heads of 8 to 192 numbers, one to twelve of which share keys and values.
test.each([
  [9, 3, 1],
  [72, 6, 2],
  [18, 18, 3],
  [6, 1, 1],
  [4, 2, 2],
  [3, 3, 1],
])('%i heads, %i of keys, on %i threads', async (heads, kvHeads, threads) => {
  const path = join(folder, `${heads}-${kvHeads}.gguf`);
  makeModel(path, { layers: 2, heads, kvHeads });
  await using model = await loadModel(path, { device: 'cpu', threads });
  const nUbatch = 320;
  const exact = await model.createContext({ kvType: 'f32', flashAttention: 'off', nUbatch });
  const context = await model.createContext({ flashAttention: 'on', nUbatch });
  const passes = [
    ...[4, 5, 15, 16, 17, 47, 48, 49, 63, 64, 65, 130, 400].map((n) => [tokens(n, n)]),
    // Some share a beginning, all are of different lengths.
    [3, 40, 41, 7, 90, 12].map((n) => [...tokens(n % 2 ? 20 : 2, 5), ...tokens(n, 1000 * n)]),
  ];
  for (const prompts of passes) {
    const rows = prompts.map((prompt) => ({ prompt: { tokens: prompt } }));
    // Flash attention reads keys and values in halves: as far apart as that makes them, which grows with the number of rows.
    expect(apart(await allStates(context, rows), await allStates(exact, rows))).toBeLessThan(4e-3);
  }
});

test.each([1, 2])('rows that are the same up to an intervention, on %i threads', async (threads) => {
  const path = join(folder, 'same.gguf');
  makeModel(path, { layers: 4 });
  await using model = await loadModel(path, { device: 'cpu', threads });
  for (const flashAttention of ['on', 'off'] as const) {
    const context = await model.createContext({ kvType: 'f32', flashAttention });
    const prompt = { tokens: tokens(30, 1) };
    const other = { tokens: [...tokens(29, 1), 7] };
    const value = randomVector(576, 3);
    const last = { positions: 'last', op: 'replace', value } as const;
    const rows: PassRow[] = [
      { prompt, interventions: [{ ...last, layers: 2 }] },
      { prompt, interventions: [{ ...last, layers: 0 }] },
      { prompt },
      { prompt: other, interventions: [{ ...last, layers: 1 }] },
      { prompt, interventions: [{ ...last, layers: 3 }] },
      {
        prompt,
        interventions: [
          { ...last, layers: 1, op: 'add' },
          { ...last, layers: 3 },
        ],
      },
      { prompt, interventions: [{ ...last, layers: 2, hook: 'mlp_out' }] },
      { prompt, interventions: [{ ...last, layers: 0, hook: 'embed', op: 'add' }] },
      { prompt, interventions: [{ layers: 1, positions: 'last', op: 'zero', hook: 'attn_out' }] },
      { prompt: other },
      { prompt: other, interventions: [{ ...last, layers: 2 }] },
    ];
    const wanted: Float32Array[] = [];
    for (const row of rows) wanted.push(...(await allStates(context, [row])));
    expect(apart(await allStates(context, rows), wanted)).toBeLessThan(1e-5);
    // Nothing of one row's place in the batch, nor of what came before it, is in the answers that go on from there.
    const answers = await context.generate(rows, { maxTokens: 6, stop: [] });
    for (const [i, row] of rows.entries()) {
      const [alone] = await context.generate([row], { maxTokens: 6, stop: [] });
      expect(answers[i]?.tokens).toEqual(alone?.tokens);
    }
  }
});

test('keys that are not numbers come out as an error', async () => {
  const path = join(folder, 'damaged.gguf');
  makeModel(path, { layers: 2 });
  const { tensors, dataOffset } = readGgufHeader(path);
  const at = (name: string) => dataOffset + (tensors.find((tensor) => tensor.name === name)?.offset as number);
  const bytes = readFileSync(path);
  new Uint16Array(bytes.buffer, bytes.byteOffset + at('blk.0.attn_k.weight'), 576 * 192).fill(0x7e00);
  writeFileSync(path, bytes);
  await using model = await loadModel(path, { device: 'cpu', threads: 1 });
  for (const flashAttention of ['on', 'off'] as const) {
    const context = await model.createContext({ flashAttention });
    const run = () => context.run({ prompt: { tokens: tokens(12, 1) }, topK: 1 });
    await expect(run()).rejects.toMatchObject({ code: 'NOT_FINITE' });
  }
});
