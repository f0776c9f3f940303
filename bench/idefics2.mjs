#!/usr/bin/env node
// Time and memory of Idefics2's picture encoder in its real size, with random weights: speed depends on the shape, not on
// what the weights say. Writes an mmproj of 2.3 GB (F16) to a temporary folder and needs the compiled dist/.
//
//   node bench/idefics2.mjs [--sizes 378x378,980x980] [--threads N] [--device auto] [--flash] [--folder DIR]

import { closeSync, existsSync, mkdtempSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { argv, cpuUsage, resourceUsage, stdout } from 'node:process';
import { parseArgs } from 'node:util';
import { readGgufHeader } from '../dist/gguf/gguf.js';
import { bool, f32, layOutGguf, text, u32 } from '../dist/gguf/gguf-writer.js';
import { readIdefics2Shape } from '../dist/gguf/idefics2-shape.js';
import { OWN_KEYS } from '../dist/gguf/own-keys.js';
import { native } from '../dist/native/index.js';

// https://huggingface.co/HuggingFaceM4/idefics2-8b/blob/main/config.json and the classes of transformers' idefics2
const VISION = { width: 1152, blocks: 27, heads: 16, ff: 4304, patch: 14, image: 980 };
const OUT = { width: 4096, ff: 14336, rows: 64, depth: 3, heads: 16, kvHeads: 4, headSize: 96 };
const [F32, F16] = [0, 1];

/** What stands in the file: name, shape (the fastest axis first); matrices are F16. */
function* tensors() {
  const { width, blocks, ff, patch, image } = VISION;
  const affine = (name, from, to) => [
    [`${name}.weight`, [from, to]],
    [`${name}.bias`, [to]],
  ];
  const norm = (name) => [
    [`${name}.weight`, [width]],
    [`${name}.bias`, [width]],
  ];
  yield ['v.patch_embd.weight', [patch, patch, 3, width]];
  yield ['v.patch_embd.bias', [width]];
  yield ['v.position_embd.weight', [width, (image / patch) ** 2]];
  for (let i = 0; i < blocks; i++) {
    for (const part of ['q', 'k', 'v', 'out']) yield* affine(`v.blk.${i}.attn_${part}`, width, width);
    yield* affine(`v.blk.${i}.ffn_up`, width, ff);
    yield* affine(`v.blk.${i}.ffn_down`, ff, width);
    for (const place of ['ln1', 'ln2']) yield* norm(`v.blk.${i}.${place}`);
  }
  yield* norm('v.post_ln');
  for (const part of ['gate', 'up']) yield [`mm.${part}.weight`, [width, OUT.ff]];
  yield ['mm.down.weight', [OUT.ff, OUT.width]];
  yield ['resampler.latents', [OUT.width, OUT.rows]];
  for (let i = 0; i < OUT.depth; i++) {
    const block = `resampler.blk.${i}`;
    for (const place of ['ln_q', 'ln_kv', 'ln_ffn']) yield [`${block}.${place}.weight`, [OUT.width]];
    yield [`${block}.attn_q.weight`, [OUT.width, OUT.heads * OUT.headSize]];
    for (const part of ['k', 'v']) yield [`${block}.attn_${part}.weight`, [OUT.width, OUT.kvHeads * OUT.headSize]];
    yield [`${block}.attn_out.weight`, [OUT.heads * OUT.headSize, OUT.width]];
    for (const part of ['gate', 'up']) yield [`${block}.ffn_${part}.weight`, [OUT.width, 4 * OUT.width]];
    yield [`${block}.ffn_down.weight`, [4 * OUT.width, OUT.width]];
  }
  yield ['resampler.norm.weight', [OUT.width]];
}

function writeMmproj(path) {
  const layout = [...tensors()].map(([name, shape]) => ({ name, shape, type: shape.length > 1 ? F16 : F32 }));
  const { header, places, size } = layOutGguf(
    {
      'general.architecture': text('clip'),
      'clip.has_vision_encoder': bool(true),
      'clip.projector_type': text('idefics2'),
      'clip.vision.image_size': u32(VISION.image),
      'clip.vision.patch_size': u32(VISION.patch),
      'clip.vision.embedding_length': u32(VISION.width),
      'clip.vision.feed_forward_length': u32(VISION.ff),
      'clip.vision.block_count': u32(VISION.blocks),
      'clip.vision.projection_dim': u32(OUT.width),
      'clip.vision.attention.head_count': u32(VISION.heads),
      'clip.vision.attention.layer_norm_epsilon': f32(1e-6),
      'clip.vision.image_mean': { type: 'f32', list: [0.5, 0.5, 0.5] },
      'clip.vision.image_std': { type: 'f32', list: [0.5, 0.5, 0.5] },
      'clip.vision.resampler.n_latents': u32(OUT.rows),
      'clip.vision.resampler.block_count': u32(OUT.depth),
      'clip.vision.resampler.head_count': u32(OUT.heads),
      'clip.vision.resampler.head_count_kv': u32(OUT.kvHeads),
      'clip.vision.resampler.head_dim': u32(OUT.headSize),
      'clip.vision.resampler.layer_norm_rms_epsilon': f32(1e-5),
      [OWN_KEYS.idefics2ShortestEdge]: u32(378),
      [OWN_KEYS.idefics2LongestEdge]: u32(980),
      [OWN_KEYS.imageBegin]: u32(32000),
      [OWN_KEYS.imageEnd]: u32(32000),
    },
    layout,
  );
  const file = openSync(`${path}.part`, 'w');
  writeSync(file, header, 0, header.length, 0);
  const pool = new Uint16Array(1 << 22);
  let state = 1;
  for (const [i, { name, shape }] of layout.entries()) {
    const { offset, bytes } = places[i];
    if (shape.length === 1) {
      const values = new Float32Array(shape[0]).fill(name.endsWith('weight') ? 1 : 0.01);
      writeSync(file, values, 0, bytes, offset);
      continue;
    }
    // Half floats of about 1 / sqrt(inputs): a sign, that exponent, and any digits.
    const inputs = shape.length === 4 ? shape[0] * shape[1] * shape[2] : shape[0];
    const exponent = (15 + Math.round(Math.log2(1 / Math.sqrt(inputs)))) << 10;
    for (let k = 0; k < Math.min(pool.length, bytes / 2); k++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes' generator
      pool[k] = ((state >>> 31) << 15) | exponent | ((state >>> 8) & 1023);
    }
    for (let at = 0; at < bytes; at += pool.byteLength) {
      writeSync(file, pool, 0, Math.min(pool.byteLength, bytes - at), offset + at);
    }
  }
  closeSync(file);
  renameSync(`${path}.part`, path);
  return size;
}

const { values } = parseArgs({
  args: argv.slice(2),
  options: {
    sizes: { type: 'string', default: '378x378' },
    threads: { type: 'string', default: String(Math.min(availableParallelism(), 8)) },
    device: { type: 'string', default: 'auto' },
    flash: { type: 'boolean', default: false },
    folder: { type: 'string' },
  },
});
const folder = values.folder ?? mkdtempSync(join(tmpdir(), 'xpatch-idefics2-'));
const mib = (bytes) => `${Math.round(bytes / 2 ** 20)} MiB`;
const peak = () => resourceUsage().maxRSS * 1024;
try {
  const path = join(folder, 'idefics2-random-f16.gguf');
  if (!existsSync(path)) stdout.write(`wrote ${path}, ${mib(writeMmproj(path))}\n`);
  readIdefics2Shape(readGgufHeader(path), (why) => new Error(why));
  const { addon } = native();
  const before = peak();
  let since = performance.now();
  const weights = await addon.weightsLoad({ path, device: values.device, threads: Number(values.threads) });
  stdout.write(`loaded in ${((performance.now() - since) / 1000).toFixed(1)} s, ${mib(peak() - before)} of memory\n`);
  for (const size of values.sizes.split(',')) {
    const [width, height] = size.split('x').map(Number);
    const rgb = Uint8Array.from({ length: width * height * 3 }, (_, i) => (i * 31) & 255);
    const loaded = peak();
    const used = cpuUsage();
    since = performance.now();
    const rows = await addon.idefics2Encode(weights, rgb, width, height, values.flash);
    const seconds = (performance.now() - since) / 1000;
    const { user, system } = cpuUsage(used);
    if (!rows.every(Number.isFinite)) throw new Error(`${size}: NaN`);
    stdout.write(
      `${size} ${values.flash ? 'with' : 'without'} flash attention: ${seconds.toFixed(1)} s, ${((user + system) / 1e6).toFixed(1)} s of the processor, ` +
        `${mib(peak() - loaded)} above the weights, ${rows.length / OUT.width} rows\n`,
    );
  }
  await addon.weightsDispose(weights);
} finally {
  if (!values.folder) rmSync(folder, { recursive: true });
}
