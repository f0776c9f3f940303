// Llama models with random quantised weights, and the same weights as float32: what a runtime must compute, up to the
// rounding of its activations.
import { writeFileSync } from 'node:fs';
import { ggufHeader, padding } from '../../bench/make-model.mjs';
import { Random } from '../../src/util/random.js';

const SHAPE = { nEmbd: 256, nHeads: 4, nKvHeads: 2, nFf: 512, nVocab: 512, nLayers: 3 };

/** Random blocks of a type, and the values that they mean. */
interface Quantisation {
  code: number;
  blockValues: number;
  blockBytes: number;
  /** Fills a block; gives its values. `deviation` is what they should have, roughly. */
  fill(block: Buffer, random: Random, deviation: number): number[];
}

/** Twice what three bits mean. */
const E2M1 = [0, 1, 2, 3, 4, 6, 8, 12];

const half = new Uint16Array(1);
/** A half of a small positive power of two times 1 to 2: sign 0, exponent, ten bits. */
function writeHalf(block: Buffer, at: number, value: number): number {
  const exponent = Math.floor(Math.log2(value));
  const fraction = Math.round((value / 2 ** exponent - 1) * 1024);
  half[0] = ((exponent + 15) << 10) + fraction;
  block.writeUInt16LE(half[0], at);
  return 2 ** exponent * (1 + fraction / 1024);
}

/** Layouts as in ggml's quants: Q8_0 is a step and 32 signed bytes; Q4_K eight groups of 32 nibbles, each with a six-bit scale and minimum. */
export const QUANTISATIONS: Record<'q8_0' | 'q4_k' | 'nvfp4' | 'q1_0' | 'q2_0', Quantisation> = {
  q8_0: {
    code: 8,
    blockValues: 32,
    blockBytes: 34,
    fill(block, random, deviation) {
      const step = writeHalf(block, 0, (deviation * (0.8 + 0.4 * random.uniform())) / 73);
      return Array.from({ length: 32 }, (_, i) => {
        const q = Math.floor(random.uniform() * 255) - 127;
        block.writeInt8(q, 2 + i);
        return step * q;
      });
    },
  },
  q4_k: {
    code: 12,
    blockValues: 256,
    blockBytes: 144,
    fill(block, random, deviation) {
      for (let i = 4; i < 144; i++) block[i] = Math.floor(random.uniform() * 256);
      const scale = writeHalf(block, 0, deviation / 250);
      const minimum = writeHalf(block, 2, (7.5 * deviation) / 250);
      const at = (i: number) => block[4 + i] as number;
      const values: number[] = [];
      for (let group = 0; group < 8; group++) {
        const low = group < 4;
        const s = low ? at(group) & 63 : (at(group + 4) & 15) | ((at(group - 4) >> 6) << 4);
        const m = low ? at(group + 4) & 63 : (at(group + 4) >> 4) | ((at(group) >> 6) << 4);
        for (let i = 0; i < 32; i++) {
          const byte = block[16 + 32 * (group >> 1) + i] as number;
          const q = group % 2 ? byte >> 4 : byte & 15;
          values.push(scale * s * q - minimum * m);
        }
      }
      return values;
    },
  },
  // Four scales without sign (four bits exponent, three fraction, halved) and 64 numbers of four bits.
  nvfp4: {
    code: 40,
    blockValues: 64,
    blockBytes: 36,
    fill(block, random, deviation) {
      for (let i = 4; i < 36; i++) block[i] = Math.floor(random.uniform() * 256);
      const values: number[] = [];
      for (let group = 0; group < 4; group++) {
        const wanted = (2 * deviation * (0.8 + 0.4 * random.uniform())) / 5.85;
        const exponent = Math.max(-6, Math.floor(Math.log2(wanted)));
        const fraction = Math.min(7, Math.max(0, Math.round((wanted / 2 ** exponent - 1) * 8)));
        block[group] = ((exponent + 7) << 3) | fraction;
        const scale = (2 ** exponent * (1 + fraction / 8)) / 2;
        const meaning = (q: number) => scale * (q & 8 ? -1 : 1) * (E2M1[q & 7] as number);
        const bytes = block.subarray(4 + 8 * group, 12 + 8 * group);
        values.push(
          ...Array.from(bytes, (byte) => meaning(byte & 15)),
          ...Array.from(bytes, (byte) => meaning(byte >> 4)),
        );
      }
      return values;
    },
  },
  q1_0: {
    code: 41,
    blockValues: 128,
    blockBytes: 18,
    fill(block, random, deviation) {
      for (let i = 2; i < 18; i++) block[i] = Math.floor(random.uniform() * 256);
      const scale = writeHalf(block, 0, deviation * (0.8 + 0.4 * random.uniform()));
      return Array.from({ length: 128 }, (_, i) => (((block[2 + (i >> 3)] as number) >> (i & 7)) & 1 ? scale : -scale));
    },
  },
  q2_0: {
    code: 42,
    blockValues: 64,
    blockBytes: 18,
    fill(block, random, deviation) {
      for (let i = 2; i < 18; i++) block[i] = Math.floor(random.uniform() * 256);
      const scale = writeHalf(block, 0, (deviation * (0.8 + 0.4 * random.uniform())) / 1.22);
      return Array.from(
        { length: 64 },
        (_, i) => scale * ((((block[2 + (i >> 2)] as number) >> (2 * (i & 3))) & 3) - 1),
      );
    },
  },
};

/** Writes the quantised model and its float32 twin. */
export function writeTwins(
  kind: keyof typeof QUANTISATIONS,
  quantisedPath: string,
  floatPath: string,
  { nLayers = SHAPE.nLayers, more = [] }: { nLayers?: number; more?: Parameters<typeof ggufHeader>[0] } = {},
): void {
  const { nEmbd, nHeads, nKvHeads, nFf, nVocab } = SHAPE;
  const nKv = (nEmbd / nHeads) * nKvHeads;
  const type = QUANTISATIONS[kind];
  const random = new Random(1, 'quantised', kind);
  const tensors: { name: string; shape: number[]; quantised: Buffer; float: Buffer }[] = [];
  const matrix = (name: string, columns: number, rows: number) => {
    const count = (columns * rows) / type.blockValues;
    const quantised = Buffer.alloc(count * type.blockBytes);
    const float = new Float32Array(columns * rows);
    for (let b = 0; b < count; b++) {
      const block = quantised.subarray(b * type.blockBytes, (b + 1) * type.blockBytes);
      float.set(type.fill(block, random, 1 / Math.sqrt(columns)), b * type.blockValues);
    }
    tensors.push({ name: `${name}.weight`, shape: [columns, rows], quantised, float: Buffer.from(float.buffer) });
  };
  const norm = (name: string) => {
    const float = Buffer.from(Float32Array.from({ length: nEmbd }, () => 0.8 + 0.4 * random.uniform()).buffer);
    tensors.push({ name: `${name}.weight`, shape: [nEmbd], quantised: float, float });
  };
  matrix('token_embd', nEmbd, nVocab);
  norm('output_norm');
  for (let i = 0; i < nLayers; i++) {
    const at = `blk.${i}`;
    norm(`${at}.attn_norm`);
    matrix(`${at}.attn_q`, nEmbd, nEmbd);
    matrix(`${at}.attn_k`, nEmbd, nKv);
    matrix(`${at}.attn_v`, nEmbd, nKv);
    matrix(`${at}.attn_output`, nEmbd, nEmbd);
    norm(`${at}.ffn_norm`);
    matrix(`${at}.ffn_gate`, nEmbd, nFf);
    matrix(`${at}.ffn_up`, nEmbd, nFf);
    matrix(`${at}.ffn_down`, nFf, nEmbd);
  }

  const metadata: Parameters<typeof ggufHeader>[0] = [
    ['general.architecture', 'string', 'llama'],
    ['general.name', 'string', `random weights, ${kind}`],
    ['llama.vocab_size', 'uint32', nVocab],
    ['llama.context_length', 'uint32', 2048],
    ['llama.embedding_length', 'uint32', nEmbd],
    ['llama.block_count', 'uint32', nLayers],
    ['llama.feed_forward_length', 'uint32', nFf],
    ['llama.attention.head_count', 'uint32', nHeads],
    ['llama.attention.head_count_kv', 'uint32', nKvHeads],
    ['llama.attention.layer_norm_rms_epsilon', 'float32', 1e-5],
    ['tokenizer.ggml.model', 'string', 'none'],
    ...more,
  ];
  const write = (path: string, which: 'quantised' | 'float') => {
    const list = tensors.map(({ name, shape, [which]: data }) => {
      const isVector = shape.length === 1;
      return { name, shape, code: isVector || which === 'float' ? 0 : type.code, length: data.length, data };
    });
    const data = list.flatMap((tensor) => [tensor.data, Buffer.alloc(padding(tensor.length))]);
    writeFileSync(path, Buffer.concat([ggufHeader(metadata, list), ...data]));
  };
  write(quantisedPath, 'quantised');
  write(floatPath, 'float');
}
