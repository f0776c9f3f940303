// Products of float weights with many rows, against sums in double precision: all shapes of tiles and both halves of a deep sum.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from '@jest/globals';
import { makeModel } from '../../bench/make-model.mjs';
import { readGgufHeader } from '../../src/gguf/gguf.js';
import { GGML } from '../../src/gguf/tensor-types.js';
import { loadModel } from '../../src/model/load-model.js';
import { temporaryFolder } from '../unit/helpers.js';
import { half, worstProduct } from './products.js';

const WIDTH = 576;
const folder = await temporaryFolder();

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
    const tokens = [0, 1, 7, 8, 15, 16, 63, 64, 65, 30000, 49087, 49088, 49151];
    for (const rows of [1, 3, 4, 5, 6, 7, 11, 12, 13, 20, 97, 128]) {
      const worst = await worstProduct(context, { rows, width: WIDTH, tokens }, (token, k) =>
        weight(token * WIDTH + k),
      );
      // Fewer rows are llama.cpp's, which rounds states to the type of the weights.
      expect(worst).toBeLessThan(rows < 4 ? 1e-2 : 2e-6);
    }
  }
});
