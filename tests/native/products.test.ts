// Products of float weights with many rows, against sums in double precision: all shapes of tiles and both halves of a deep sum.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from '@jest/globals';
import { makeModel } from '../../bench/make-model.mjs';
import { readGgufHeader } from '../../src/gguf/gguf.js';
import { GGML } from '../../src/gguf/tensor-types.js';
import { loadModel } from '../../src/model/load-model.js';
import type { ContextHandle } from '../../src/native/addon.js';
import { native } from '../../src/native/index.js';
import { Random } from '../../src/util/random.js';
import { temporaryFolder } from '../unit/helpers.js';
import { load } from './helpers.js';

const HEAD = 2; // the part of the graph that is nothing but the product
const WIDTH = 576;
const folder = await temporaryFolder();

const half = (bits: number): number => {
  const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, (bits & 1023) / 1024];
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
};
const brain = (bits: number): number => new Float32Array(Uint32Array.of(bits << 16).buffer)[0] as number;

/** A model, whose embeddings are its head too, and these numbers. */
function writeModels() {
  const path = join(folder, 'f16.gguf');
  makeModel(path, { layers: 1 });
  const { tensors, dataOffset } = readGgufHeader(path);
  const name = 'token_embd.weight';
  const from = dataOffset + (tensors.find((tensor) => tensor.name === name)?.offset as number);
  const bytes = readFileSync(path);
  const bits = new Uint16Array(Uint8Array.from(bytes.subarray(from, from + 49152 * WIDTH * 2)).buffer);
  // The same bits under another name: behind the tensor's name come the number of sizes, two sizes, and its type.
  bytes.writeUInt32LE(GGML.BF16, bytes.indexOf(name) + name.length + 4 + 2 * 8);
  const other = join(folder, 'bf16.gguf');
  writeFileSync(other, bytes);
  return [
    { path, weight: (i: number) => half(bits[i] as number) },
    { path: other, weight: (i: number) => brain(bits[i] as number) },
  ];
}

let models: ReturnType<typeof writeModels>;
beforeAll(() => {
  models = writeModels();
});

test.each([1, 2, 3])('rows of states times a head of halves, on %i threads', async (threads) => {
  for (const { path, weight } of models) {
    await using model = await loadModel(path, { device: 'cpu', threads });
    const context = await model.createContext({ nCtx: 256 });
    const { handle } = context as unknown as { handle: ContextHandle };
    const random = new Random(1, 'products');
    const tokens = [0, 1, 7, 8, 15, 16, 63, 64, 65, 30000, 49087, 49088, 49151];
    const columns = tokens.map((token) => Float64Array.from({ length: WIDTH }, (_, k) => weight(token * WIDTH + k)));
    for (const rows of [1, 3, 4, 5, 6, 7, 11, 12, 13, 20, 97, 128]) {
      const states = Float32Array.from({ length: rows * WIDTH }, () => random.uniform() - 0.5);
      const readings = readingsOf(rows, tokens);
      await native().addon.contextLens(handle, { tail: HEAD, rows, states, readings });
      let [worst, size] = [0, 0];
      for (let row = 0; row < rows; row++) {
        for (const [i, column] of columns.entries()) {
          const sum = column.reduce((all, x, k) => all + (states[row * WIDTH + k] as number) * x, 0);
          worst = Math.max(worst, Math.abs(sum - (readings.tokenLogits[row * tokens.length + i] as number)));
          size = Math.max(size, Math.abs(sum));
        }
      }
      // Fewer rows are llama.cpp's, which rounds states to the type of the weights.
      expect(worst / size).toBeLessThan(rows < 4 ? 1e-2 : 2e-6);
    }
  }
});

// 2401 rows on 13 threads: two parts less than one would think, as parts are rounded up.
test('rows that do not divide evenly among threads', async () => {
  await using model = await load('llama');
  const prompt = await model.prompt({ tokens: Array.from({ length: 2401 }, (_, i) => 5 + ((i * 37) % 200)) });
  const read = async (threads: number) => {
    await using context = await model.createContext({ nCtx: 2401, nUbatch: 2401, threads, kvType: 'f32' });
    const { states } = await context.run({ prompt, capture: { layers: [0, 1], positions: [0, 1200, 2400] } });
    return states.data;
  };
  const [one, many] = [await read(1), await read(13)];
  expect(many.every((x, i) => Math.abs(x - (one[i] as number)) < 1e-3)).toBe(true);
});

function readingsOf(rows: number, tokens: number[]) {
  return {
    topK: 0,
    topIds: new Int32Array(0),
    topLogits: new Float32Array(0),
    tokens: Int32Array.from(tokens),
    tokenLogits: new Float32Array(rows * tokens.length),
    tokenRanks: new Int32Array(rows * tokens.length),
    logsumexp: new Float32Array(rows),
    entropy: new Float32Array(rows),
    reference: Int32Array.from({ length: rows }, (_, row) => row),
    kl: new Float32Array(rows),
  };
}
