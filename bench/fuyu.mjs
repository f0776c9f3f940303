#!/usr/bin/env node
// Time and memory of Fuyu's pictures with a matrix of real size and random numbers. Writes 44 MB to a temporary folder and
// needs the compiled dist/.
//
//   node bench/fuyu.mjs [--sizes 224x168,224x224]

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { cpuUsage, resourceUsage } from 'node:process';
import { parseArgs } from 'node:util';
import { layOutGguf, text, u32 } from '../dist/gguf/gguf-writer.js';
import { OWN_KEYS } from '../dist/gguf/own-keys.js';
import { openFuyu } from '../dist/images/encoders/fuyu.js';
import { rgbImage } from '../dist/images/image.js';

// https://huggingface.co/adept/fuyu-8b/blob/main/config.json
const [WIDTH, PATCH, VOCABULARY] = [4096, 30, 262_144];
const { values } = parseArgs({ options: { sizes: { type: 'string', default: '224x168,224x224' } } });
const folder = mkdtempSync(join(tmpdir(), 'xpatch-fuyu-'));
const seconds = ({ user, system }) => (user + system) / 1e6;
try {
  const colours = { type: 'f32', list: Float32Array.of(0.5, 0.5, 0.5) };
  const layout = [
    { name: 'mm.patch_embd.weight', shape: [PATCH * PATCH * 3, WIDTH], type: 0 },
    { name: 'mm.patch_embd.bias', shape: [WIDTH], type: 0 },
    { name: 'mm.newline', shape: [WIDTH], type: 0 },
  ];
  const { header, places, size } = layOutGguf(
    {
      'general.architecture': text('clip'),
      'clip.projector_type': text('fuyu'),
      'clip.vision.patch_size': u32(PATCH),
      'clip.vision.image_mean': colours,
      'clip.vision.image_std': colours,
      [OWN_KEYS.fuyuMaxHeight]: u32(1080),
      [OWN_KEYS.fuyuMaxWidth]: u32(1920),
    },
    layout,
  );
  const bytes = Buffer.alloc(size);
  bytes.set(header);
  for (const { offset, bytes: length } of places) {
    const numbers = Float32Array.from({ length: length / 4 }, (_, i) => Math.sin(i * 12.9898) / 50);
    bytes.set(new Uint8Array(numbers.buffer), offset);
  }
  const path = join(folder, 'mmproj.gguf');
  writeFileSync(path, bytes);
  const encoder = await openFuyu({ nEmbdInput: WIDTH, positionsPerEmbedding: 1, nVocab: VOCABULARY }, path, {
    hash: '',
  });
  for (const [width, height] of values.sizes.split(',').map((side) => side.split('x').map(Number))) {
    const picture = rgbImage(
      Uint8Array.from({ length: width * height * 3 }, (_, i) => i % 251),
      width,
      height,
    );
    const delay = monitorEventLoopDelay({ resolution: 5 });
    delay.enable();
    const before = cpuUsage();
    const started = performance.now();
    const [{ nRows }] = await encoder.encode(picture);
    const wall = (performance.now() - started) / 1000;
    const blocked = Math.round(delay.max / 1e6);
    delay.disable();
    console.log(
      `${width} x ${height}: ${nRows} rows, ${seconds(cpuUsage(before)).toFixed(2)} s of processor time, ${wall.toFixed(2)} s, ` +
        `event loop blocked for at most ${blocked} ms, peak ${Math.round(resourceUsage().maxRSS / 1024)} MiB`,
    );
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
