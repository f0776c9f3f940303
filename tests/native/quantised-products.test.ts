// Products of quantised weights with many rows, against sums in double precision of numbers that are decoded here, from the
// descriptions of the formats.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { f32, layOutGguf, text, u32 } from '../../src/gguf/gguf-writer.js';
import { GGML, type GgmlName } from '../../src/gguf/tensor-types.js';
import { loadModel } from '../../src/model/load-model.js';
import { Random } from '../../src/util/random.js';
import { temporaryFolder } from '../unit/helpers.js';
import { half, WIDENS, worstProduct } from './products.js';

const WIDTH = 1024; // more than a panel is deep
const folder = await temporaryFolder();

interface Format {
  /** Numbers and bytes of a block, and where it has halves, which are made small here. */
  readonly block: number;
  readonly bytes: number;
  readonly halves: readonly number[];
  /** Number `i` of the block at `at`. */
  number(b: Buffer, at: number, i: number): number;
}

const nibble = (byte: number, high: boolean): number => (high ? byte >> 4 : byte & 15);
const bit = (b: Buffer, at: number, i: number): number => ((b[at + (i >> 3)] as number) >> (i & 7)) & 1;
const scale = (b: Buffer, at: number): number => half(b.readUInt16LE(at));

const FORMATS: Partial<Record<GgmlName, Format>> = {
  Q8_0: { block: 32, bytes: 34, halves: [0], number: (b, at, i) => scale(b, at) * b.readInt8(at + 2 + i) },
  Q5_0: {
    block: 32,
    bytes: 22,
    halves: [0],
    number: (b, at, i) =>
      scale(b, at) * (nibble(b[at + 6 + (i % 16)] as number, i >= 16) + 16 * bit(b, at + 2, i) - 16),
  },
  Q6_K: {
    block: 256,
    bytes: 210,
    halves: [208],
    number: (b, at, i) => {
      const [side, part, l] = [i >> 7, (i >> 5) & 3, i & 31];
      const low = nibble(b[at + side * 64 + (part & 1) * 32 + l] as number, part > 1);
      const high = ((b[at + 128 + side * 32 + l] as number) >> (2 * part)) & 3;
      return scale(b, at + 208) * b.readInt8(at + 192 + (i >> 4)) * (low + 16 * high - 32);
    },
  },
};

/** A model whose head has this type, of random bits. @returns its path, and number `k` of the row of a token */
function writeModel(type: GgmlName, format: Format, nVocab: number) {
  const norm = (name: string) => ({ name: `${name}.weight`, shape: [WIDTH], type: GGML.F32 });
  const matrix = (name: string, rows: number, own: GgmlName = 'F16') => ({
    name: `${name}.weight`,
    shape: [WIDTH, rows],
    type: GGML[own],
  });
  const { header, size, places } = layOutGguf(
    {
      'general.architecture': text('llama'),
      'llama.vocab_size': u32(nVocab),
      'llama.context_length': u32(256),
      'llama.embedding_length': u32(WIDTH),
      'llama.block_count': u32(1),
      'llama.feed_forward_length': u32(WIDTH),
      'llama.attention.head_count': u32(8),
      'llama.attention.layer_norm_rms_epsilon': f32(1e-5),
      'tokenizer.ggml.model': text('none'),
    },
    [
      matrix('token_embd', nVocab),
      norm('output_norm'),
      norm('blk.0.attn_norm'),
      ...['attn_q', 'attn_k', 'attn_v', 'attn_output'].map((name) => matrix(`blk.0.${name}`, WIDTH)),
      norm('blk.0.ffn_norm'),
      ...['ffn_gate', 'ffn_up', 'ffn_down'].map((name) => matrix(`blk.0.${name}`, WIDTH)),
      matrix('output', nVocab, type),
    ],
  );
  const random = new Random(1, type);
  const rowBytes = (WIDTH / format.block) * format.bytes;
  const head = Buffer.from(Uint8Array.from({ length: nVocab * rowBytes }, () => Math.floor(random.uniform() * 256)));
  for (let at = 0; at < head.length; at += format.bytes) {
    for (const place of format.halves) head.writeUInt16LE(0x2000 + Math.floor(random.uniform() * 0x400), at + place);
  }
  const file = Buffer.alloc(size);
  file.set(header);
  file.set(head, places.at(-1)?.offset);
  const path = join(folder, `${type}-${nVocab}.gguf`);
  writeFileSync(path, file);
  const weight = (token: number, k: number) =>
    format.number(head, token * rowBytes + Math.floor(k / format.block) * format.bytes, k % format.block);
  return { path, weight };
}

test.each(Object.keys(FORMATS).flatMap((type) => [304, 301].map((nVocab) => [type, nVocab] as const)))(
  'rows of states times a head in %s of %i tokens',
  async (name, nVocab) => {
    const type = name as GgmlName;
    const { path, weight } = writeModel(type, FORMATS[type] as Format, nVocab);
    const tokens = [0, 1, 7, 8, 15, 16, 63, 64, 65, 200, nVocab - 2, nVocab - 1];
    for (const threads of [1, 3]) {
      await using model = await loadModel(path, { device: 'cpu', threads });
      const context = await model.createContext({ nCtx: 256 });
      for (const rows of [1, 4, 31, 32, 33, 97, 128]) {
        const worst = await worstProduct(context, { rows, width: WIDTH, tokens }, weight);
        expect([rows, worst < (WIDENS && rows >= 32 ? 3e-6 : 3e-2)]).toEqual([rows, true]);
        if (WIDENS && rows < 32) expect(worst).toBeGreaterThan(1e-5); // else this shows nothing
      }
    }
  },
);
