// The demo model: which rows the quadrants and patches of a picture reach, through its encoder as it is and without attention.

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { readGgufHeader } from '../../src/gguf/gguf.js';
import { resolveModel } from '../../src/hub/resolve.js';
import { readImage } from '../../src/images/image.js';
import { patchRectangle } from '../../src/images/patch-grid.js';
import { loadModel } from '../../src/model/load-model.js';
import type { Model } from '../../src/model/model.js';
import type { Segment } from '../../src/prompt/prompt.js';
import { headerFields } from '../native/damage.js';
import { writeTower } from '../native/towers.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';

const folder = await temporaryFolder();
const demo = resolveModel('demo') as { model: string; mmproj: string };
let model: Model;
beforeAll(async () => {
  model = await loadModel('demo', { device: 'cpu', threads: 1 });
});
afterAll(() => model.dispose());

const QUADRANTS = [
  { at: { x: 0, y: 0 }, colour: [220, 30, 40] },
  { at: { x: 32, y: 0 }, colour: [30, 160, 60] },
  { at: { x: 0, y: 32 }, colour: [40, 60, 200] },
  { at: { x: 32, y: 32 }, colour: [240, 210, 50] },
];

type Picture = { data: Uint8Array; width: number; height: number };

/** 64 x 64 pixels of `background`, with a colour in the square at x, y. */
function paint(background: Uint8Array, at: { x: number; y: number }, side: number, colour: number[]): Picture {
  const data = background.slice();
  for (let y = at.y; y < at.y + side; y++) {
    for (let x = at.x; x < at.x + side; x++) data.set(colour, 3 * (y * 64 + x));
  }
  return { data, width: 64, height: 64 };
}

async function encode(encoder: Model, image: Picture) {
  const prompt = await encoder.prompt(['Q:', { image }]);
  const segment = prompt.segments.find((s) => s.kind === 'image') as Extract<Segment, { kind: 'image' }>;
  return { prompt, first: prompt.pictures[0]?.first as number, embeddings: segment.embeddings };
}

/** How far each row moved, squared. */
function moved(a: Float32Array, b: Float32Array): number[] {
  const distances = new Array<number>(16).fill(0);
  const width = a.length / 16;
  for (const [i, value] of a.entries()) {
    (distances[Math.floor(i / width)] as number) += (value - (b[i] as number)) ** 2;
  }
  return distances;
}

test('without attention, each of four different quadrants reaches the four rows whose rectangles lie in it', async () => {
  // A copy of the shipped encoder in which no patch hears of another.
  const file = await readFile(demo.mmproj);
  const header = readGgufHeader(demo.mmproj);
  const { data } = headerFields(file);
  const outputs = header.tensors.filter(({ name }) => name.endsWith('attn_out.weight'));
  expect(outputs.map(({ type, shape }) => [type, ...shape])).toEqual(Array(4).fill([1, 192, 192])); // F16
  for (const { offset } of outputs) file.fill(0, data + offset, data + offset + 2 * 192 * 192);
  const mmproj = join(folder, 'deaf.gguf');
  await writeFile(mmproj, file);
  const deaf = await loadModel(demo.model, { mmproj, device: 'cpu', threads: 1 });
  try {
    let picture: Uint8Array = new Uint8Array(64 * 64 * 3);
    for (const { at, colour } of QUADRANTS) picture = paint(picture, at, 32, colour).data;
    const plain = await encode(deaf, { data: picture, width: 64, height: 64 });
    expect(Buffer.compare(plain.prompt.pictures[0]?.seen.data as Uint8Array, picture)).toBe(0);
    for (const { at } of QUADRANTS) {
      const changed = await encode(deaf, paint(picture, at, 32, [128, 128, 128]));
      for (const [row, distance] of moved(plain.embeddings, changed.embeddings).entries()) {
        const { x, y } = patchRectangle(plain.prompt, plain.first + row);
        const inside = x >= at.x && x < at.x + 32 && y >= at.y && y < at.y + 32;
        expect([row, distance > 0]).toEqual([row, inside]);
      }
    }
  } finally {
    await deaf.dispose();
  }
});

test('as it is, a row answers its own rectangle most, much oftener than one in 16', async () => {
  const names = [
    'noto/afghanistan',
    'noto/cat',
    'noto/oman',
    'twemoji/american-bison',
    'twemoji/chile',
    'twemoji/spain',
  ];
  let hits = 0;
  for (const name of names) {
    const { data } = await readImage(fileURLToPath(new URL(`../../data/images/${name}.png`, import.meta.url)));
    const plain = await encode(model, { data, width: 64, height: 64 });
    for (let row = 0; row < 16; row++) {
      const at = patchRectangle(plain.prompt, plain.first + row);
      const changed = await encode(model, paint(data, at, at.width, [128, 128, 128]));
      const distances = moved(plain.embeddings, changed.embeddings);
      hits += Number(distances.indexOf(Math.max(...distances)) === row);
    }
  }
  expect(hits / (16 * names.length)).toBeGreaterThan(0.5);
});

test('a resampler, whose rows look at the whole picture, is refused with the reason', async () => {
  const mmproj = join(folder, 'resampler.gguf');
  writeTower(mmproj, 'resampler', model.info.nEmbd);
  const resampling = await loadModel(demo.model, { mmproj, device: 'cpu', threads: 1 });
  try {
    const grey = { data: new Uint8Array(64 * 64 * 3).fill(128), width: 64, height: 64 };
    const { prompt, first } = await encode(resampling, grey);
    expect(prompt.pictures[0]?.nRows).toBe(96);
    await expectError(
      () => patchRectangle(prompt, first),
      'NO_PATCH_GRID',
      /rows of this picture have no place in it \(projector 'resampler': its rows are learned queries/,
    );
  } finally {
    await resampling.dispose();
  }
});
