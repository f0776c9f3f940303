#!/usr/bin/env node
// Writes a llama-architecture GGUF of the shape of SmolLM2-135M with random weights, for benchmarks: speed depends on
// the shape, not on what the weights say. No tokenizer inside (tokenizer.ggml.model = none): prompts are token ids.
//
//   node bench/make-model.mjs OUT.gguf [--type f16|q8_0] [--seed 1] [--layers 30]

import { closeSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { argv } from 'node:process';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

// https://huggingface.co/HuggingFaceTB/SmolLM2-135M/blob/main/config.json
const SHAPE = { nEmbd: 576, nFf: 1536, nVocab: 49152, nCtx: 8192, ropeBase: 100000 };
const ALIGNMENT = 32;
// Weights are copied from a pool of this many values, at offsets drawn at random: drawing 135M normal deviates would
// take most of a minute.
const POOL = 1 << 19;
const CHUNK = 1 << 15;

// GGUF's codes for the types of values and tensors (ggml/include/gguf.h and ggml.h).
const GGUF_TYPE = { uint32: 4, float32: 6, string: 8 };
const ENCODINGS = {
  f32: { code: 0, fileType: 0, blockValues: 1, blockBytes: 4, encode: (values) => Buffer.from(values.buffer) },
  f16: { code: 1, fileType: 1, blockValues: 1, blockBytes: 2, encode: encodeF16 },
  q8_0: { code: 8, fileType: 7, blockValues: 32, blockBytes: 34, encode: encodeQ8 },
};

/** A 32-bit generator (mulberry32): uniform in [0, 1). */
function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

function normals(random, count, deviation) {
  const values = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = deviation * Math.sqrt(-2 * Math.log(1 - random()));
    const angle = 2 * Math.PI * random();
    values[i] = radius * Math.cos(angle);
    if (i + 1 < count) values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

const floatView = new Float32Array(1);
const bitsView = new Uint32Array(floatView.buffer);

/** Rounds to the nearest half. Weights are far from its largest value; what is below its normal range becomes 0. */
function toHalf(value) {
  floatView[0] = value;
  const bits = bitsView[0];
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude < 0x38800000) return sign;
  return sign | ((magnitude - 0x38000000 + 0x1000) >>> 13);
}

function encodeF16(values) {
  return Buffer.from(Uint16Array.from(values, toHalf).buffer);
}

/** Blocks of 32: a half with the step, then 32 signed bytes. */
function encodeQ8(values) {
  const out = Buffer.alloc((values.length / 32) * 34);
  for (let block = 0; block < values.length / 32; block++) {
    const slice = values.subarray(block * 32, block * 32 + 32);
    const step = slice.reduce((max, value) => Math.max(max, Math.abs(value)), 0) / 127;
    out.writeUInt16LE(toHalf(step), block * 34);
    for (let i = 0; i < 32; i++) out.writeInt8(step === 0 ? 0 : Math.round(slice[i] / step), block * 34 + 2 + i);
  }
  return out;
}

function u32(value) {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value);
  return out;
}

function u64(value) {
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(BigInt(value));
  return out;
}

function text(value) {
  const bytes = Buffer.from(value, 'utf8');
  return Buffer.concat([u64(bytes.length), bytes]);
}

function metadata({ layers, heads, kvHeads }, fileType) {
  return [
    ['general.architecture', 'string', 'llama'],
    ['general.name', 'string', 'random weights in the shape of SmolLM2-135M'],
    ['general.file_type', 'uint32', fileType],
    ['general.quantization_version', 'uint32', 2],
    ['llama.vocab_size', 'uint32', SHAPE.nVocab],
    ['llama.context_length', 'uint32', SHAPE.nCtx],
    ['llama.embedding_length', 'uint32', SHAPE.nEmbd],
    ['llama.block_count', 'uint32', layers],
    ['llama.feed_forward_length', 'uint32', SHAPE.nFf],
    ['llama.attention.head_count', 'uint32', heads],
    ['llama.attention.head_count_kv', 'uint32', kvHeads],
    ['llama.attention.layer_norm_rms_epsilon', 'float32', 1e-5],
    ['llama.rope.dimension_count', 'uint32', SHAPE.nEmbd / heads],
    ['llama.rope.freq_base', 'float32', SHAPE.ropeBase],
    ['tokenizer.ggml.model', 'string', 'none'],
  ];
}

/** Tensors in file order. shape is [columns, rows]; columns is the fan-in. The head is tied to the embeddings. */
function tensors({ layers, heads, kvHeads }, type) {
  const { nEmbd, nFf, nVocab } = SHAPE;
  const nKv = (nEmbd / heads) * kvHeads;
  const norm = (name) => ({ name, shape: [nEmbd], type: 'f32' });
  const matrix = (name, columns, rows) => ({ name, shape: [columns, rows], type });
  const list = [matrix('token_embd.weight', nEmbd, nVocab), norm('output_norm.weight')];
  for (let i = 0; i < layers; i++) {
    list.push(
      norm(`blk.${i}.attn_norm.weight`),
      matrix(`blk.${i}.attn_q.weight`, nEmbd, nEmbd),
      matrix(`blk.${i}.attn_k.weight`, nEmbd, nKv),
      matrix(`blk.${i}.attn_v.weight`, nEmbd, nKv),
      matrix(`blk.${i}.attn_output.weight`, nEmbd, nEmbd),
      norm(`blk.${i}.ffn_norm.weight`),
      matrix(`blk.${i}.ffn_gate.weight`, nEmbd, nFf),
      matrix(`blk.${i}.ffn_up.weight`, nEmbd, nFf),
      matrix(`blk.${i}.ffn_down.weight`, nFf, nEmbd),
    );
  }
  return list;
}

/** Bytes to the next multiple of the alignment. */
export const padding = (length) => (ALIGNMENT - (length % ALIGNMENT)) % ALIGNMENT;

function byteLength({ shape, type }) {
  const { blockValues, blockBytes } = ENCODINGS[type];
  return (shape.reduce((a, b) => a * b, 1) / blockValues) * blockBytes;
}

/**
 * The header of a GGUF file, padded to where the data of the first tensor begins; each tensor's data is padded to 32 bytes.
 *
 * @param {[key: string, type: 'uint32' | 'float32' | 'string', value: string | number][]} entries
 * @param {{ name: string, shape: number[], code: number, length: number }[]} list code = ggml's id of the type, length in bytes
 * @returns {Buffer}
 */
export function ggufHeader(entries, list) {
  const float = (value) => {
    const out = Buffer.alloc(4);
    out.writeFloatLE(value);
    return out;
  };
  const encode = { string: text, uint32: u32, float32: float };
  const parts = [Buffer.from('GGUF'), u32(3), u64(list.length), u64(entries.length)];
  for (const [key, type, value] of entries) parts.push(text(key), u32(GGUF_TYPE[type]), encode[type](value));
  let offset = 0;
  for (const { name, shape, code, length } of list) {
    parts.push(text(name), u32(shape.length), ...shape.map(u64), u32(code), u64(offset));
    offset += length + padding(length);
  }
  const bytes = Buffer.concat(parts);
  return Buffer.concat([bytes, Buffer.alloc(padding(bytes.length))]);
}

/**
 * Writes the model to path; a file of that name is replaced only once the new one is whole.
 *
 * @param {string} path
 * @param {{ type?: 'f16' | 'q8_0', seed?: number, layers?: number, heads?: number, kvHeads?: number }} [options]
 *   Defaults to f16, seed 1, 30 layers, 9 heads of which 3 have keys and values.
 */
export function makeModel(path, { type = 'f16', seed = 1, layers = 30, heads = 9, kvHeads = 3 } = {}) {
  if (type !== 'f16' && type !== 'q8_0') throw new RangeError(`type is f16 or q8_0, not ${type}`);
  if (!Number.isInteger(layers) || layers < 1) throw new RangeError(`layers is a whole number from 1, not ${layers}`);
  const random = uniform(seed);
  const { blockValues, blockBytes, encode } = ENCODINGS[type];
  // One pool a fan-in, with deviation 1/sqrt(fan-in), so that states keep their size from layer to layer.
  const pools = new Map(
    [SHAPE.nEmbd, SHAPE.nFf].map((fanIn) => [fanIn, encode(normals(random, POOL, 1 / Math.sqrt(fanIn)))]),
  );
  const shape = { layers, heads, kvHeads };
  const list = tensors(shape, type);
  const partial = `${path}.part`;
  const file = openSync(partial, 'w');
  const write = (bytes) => {
    for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done);
  };
  try {
    const described = list.map((tensor) => ({
      ...tensor,
      code: ENCODINGS[tensor.type].code,
      length: byteLength(tensor),
    }));
    write(ggufHeader(metadata(shape, ENCODINGS[type].fileType), described));
    for (const tensor of list) {
      const length = byteLength(tensor);
      if (tensor.type === 'f32') {
        write(Buffer.from(Float32Array.from({ length: length / 4 }, () => 0.8 + 0.4 * random()).buffer));
      } else {
        const pool = pools.get(tensor.shape[0]);
        const chunkBytes = (CHUNK / blockValues) * blockBytes;
        for (let done = 0; done < length; done += chunkBytes) {
          // A whole number of blocks of any type, so that q8_0 is the f16 model of the same seed, quantised.
          const first = Math.floor((random() * (POOL - CHUNK)) / 32) * 32;
          const start = (first / blockValues) * blockBytes;
          write(pool.subarray(start, start + Math.min(chunkBytes, length - done)));
        }
      }
      write(Buffer.alloc(padding(length)));
    }
    closeSync(file);
    renameSync(partial, path);
  } catch (error) {
    rmSync(partial, { force: true });
    throw error;
  }
}

if (argv[1] !== undefined && import.meta.url === pathToFileURL(argv[1]).href) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { type: { type: 'string' }, seed: { type: 'string' }, layers: { type: 'string' } },
  });
  if (positionals.length !== 1) {
    console.error('usage: node bench/make-model.mjs OUT.gguf [--type f16|q8_0] [--seed 1] [--layers 30]');
    process.exitCode = 1;
  } else {
    const number = (value) => (value === undefined ? undefined : Number(value));
    makeModel(positionals[0], { type: values.type, seed: number(values.seed), layers: number(values.layers) });
  }
}
