// The picture that the model saw, and which part of it each row stands for: asked of the encoders themselves, by changing the
// pixels of one rectangle after the other.

import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { patchRectangle } from '../../src/images/patch-grid.js';
import type { Model } from '../../src/model/model.js';
import type { Segment } from '../../src/prompt/prompt.js';
import type { PatchRectangle } from '../../src/prompt/types.js';
import { Random } from '../../src/util/random.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';
import { fixture, load } from './helpers.js';
import { writeTower } from './towers.js';

type Picture = { data: Uint8Array; width: number; height: number };
type Rows = Extract<Segment, { kind: 'image' }>;

const folder = await temporaryFolder();

/** Seeded random pixels. */
function noise(width: number, height: number): Picture {
  const random = new Random(7, 'picture');
  return { width, height, data: Uint8Array.from({ length: 3 * width * height }, () => 256 * random.uniform()) };
}

function inverted({ data, width, height }: Picture, { x, y, width: w, height: h }: PatchRectangle): Picture {
  const copy = data.slice();
  for (let line = y; line < y + h; line++) {
    for (let i = 3 * (line * width + x); i < 3 * (line * width + x + w); i++) copy[i] = 255 - (copy[i] as number);
  }
  return { data: copy, width, height };
}

async function encode(model: Model, image: Picture): Promise<Rows[]> {
  const { segments } = await model.prompt([{ tokens: [5] }, { image }]);
  return segments.filter((segment) => segment.kind === 'image');
}

/** How far each row moved, squared. */
function moved(a: Rows, b: Rows): number[] {
  const distances = new Array<number>(a.nRows).fill(0);
  const width = a.embeddings.length / a.nRows;
  for (const [i, value] of a.embeddings.entries()) {
    (distances[Math.floor(i / width)] as number) += (value - (b.embeddings[i] as number)) ** 2;
  }
  return distances;
}

/** For some 24 rows with a rectangle, how far all rows move when the pixels of that rectangle are inverted. */
async function responses(model: Model, image: Picture): Promise<[row: number, moved: number[]][]> {
  const [plain, ...others] = await encode(model, image);
  expect(others).toEqual([]);
  const { seen, grid, nRows } = plain as Rows;
  // Scaled already: rectangles of `seen` are rectangles of `image`.
  expect([seen.width, seen.height, Buffer.compare(seen.data, image.data)]).toEqual([image.width, image.height, 0]);
  if ('reason' in grid) throw new Error(grid.reason);
  expect(grid).toHaveLength(nRows);
  const found: [number, number[]][] = [];
  const step = Math.ceil(nRows / 24) | 1; // odd, so that it goes through all columns
  for (const [row, rectangle] of grid.entries()) {
    if (!rectangle || row % step !== 0) continue;
    const [changed] = await encode(model, inverted(image, rectangle));
    found.push([row, moved(plain as Rows, changed as Rows)]);
  }
  expect(found.length).toBeGreaterThan(0);
  return found;
}

const farthest = (distances: number[]) => distances.indexOf(Math.max(...distances));

describe.each(['llava', 'llava-siglip', 'gemma3', 'qwen2-vl'])('%s', (name) => {
  const dynamic = name === 'qwen2-vl';
  let model: Model;
  beforeAll(async () => {
    model = await load(name, { vision: true });
  });

  test('a picture of the right size is seen as it is, and every row answers its rectangle most', async () => {
    const image = dynamic ? noise(64, 48) : noise(32, 32);
    for (const [row, distances] of await responses(model, image)) expect(farthest(distances)).toBe(row);
    const prompt = await model.prompt([{ tokens: [5, 6] }, { image }, { tokens: [7] }, { image }]);
    const [first, second] = prompt.pictures;
    expect(first?.nRows).toBe(dynamic ? 12 : 16);
    expect(prompt.tokens.subarray(first?.first, (first?.first as number) + 1)).toEqual(Int32Array.of(-1));
    const side = dynamic ? 16 : 8;
    expect(patchRectangle(prompt, (second?.first as number) + 5)).toEqual({
      picture: 1,
      x: side,
      y: side,
      width: side,
      height: side,
    });
  });

  test('a wide picture is seen with its padding', async () => {
    // 100 x 40 white pixels. Scaled to fit 32 x 32 they are 32 x 12.8, to fit 96 x 48 (the nearest multiples of 16) 96 x 38.4;
    // mtmd rounds up and puts them in the middle.
    const [{ seen }] = (await encode(model, { data: new Uint8Array(12000).fill(255), width: 100, height: 40 })) as [
      Rows,
    ];
    const [width, height, top, lines] = dynamic ? [96, 48, 4, 39] : [32, 32, 9, 13];
    expect(seen).toMatchObject({ width, height });
    const padding = name.startsWith('llava') ? [122, 116, 104] : [0, 0, 0];
    const expected = Array.from({ length: height }, (_, y) =>
      y >= top && y < top + lines ? [255, 255, 255] : padding,
    );
    for (const [y, colour] of expected.entries()) {
      const line = seen.data.subarray(3 * y * width, 3 * (y + 1) * width);
      expect(Array.from(line)).toEqual(Array.from({ length: 3 * width }, (_, i) => colour[i % 3]));
    }
  });

  test('a picture of another size is seen scaled', async () => {
    const [width, height, ...size] = dynamic ? [32, 24, 64, 48] : [96, 96, 32, 32]; // sides that leave no padding
    /** A smooth function of the place in the picture, sampled at the middle of each pixel. */
    const waves = (w: number, h: number) =>
      Uint8Array.from({ length: 3 * w * h }, (_, i) => {
        const [x, y] = [((Math.floor(i / 3) % w) + 0.5) / w, (Math.floor(i / 3 / w) + 0.5) / h];
        return 128.5 + 100 * Math.sin(6 * x + (i % 3)) * Math.cos(4 * y);
      });
    const [{ seen }] = (await encode(model, { data: waves(width, height), width, height })) as [Rows];
    expect([seen.width, seen.height]).toEqual(size);
    const expected = waves(seen.width, seen.height);
    const differences = expected.map((value, i) => Math.abs(value - (seen.data[i] as number)));
    expect(differences.reduce((sum, n) => sum + n) / differences.length).toBeLessThan(1); // of 255
    expect(Math.max(...differences)).toBeLessThan(8); // at the edges, where a filter has nothing to read
  });
});

describe('projectors whose rows keep a grid', () => {
  const open = (name: string) => {
    const mmproj = join(folder, `${name}.gguf`);
    writeTower(mmproj, name, 64);
    return load('llava', { mmproj });
  };
  // Wide where the encoder takes pictures of any shape, so that lines and columns cannot be confused.
  test.each<[string, number, number]>([
    ['mlp', 32, 32],
    ['mlp_norm', 32, 32],
    ['janus_pro', 32, 32],
    ['phi4', 48, 32],
    ['cogvlm', 32, 32],
    ['adapter', 32, 32],
    ['qwen2vl_merger', 48, 32],
    ['qwen2.5vl_merger', 128, 32], // wider than an attention window of 112 pixels
    ['qwen3vl_merger', 48, 32],
    ['exaone4_5', 128, 32],
    ['mimovl', 48, 32],
    ['minimax_m3', 48, 32],
    ['glm4v', 48, 32],
    ['youtuvl', 48, 32],
    ['muse-glimmer', 48, 32],
    ['gemma3', 32, 32],
    ['gemma4v', 96, 72],
    ['gemma4uv', 96, 72],
    ['nemotron_v2_vl', 32, 32],
    ['internvl', 32, 32],
    ['llama4', 32, 32],
    ['minicpmv4_6', 32, 32],
    ['minicpmv4_6-twice', 32, 32],
    ['paddleocr', 48, 32],
    ['dots_ocr', 48, 32],
    ['lfm2', 96, 64],
    ['kimivl', 48, 32],
    ['kimik25', 48, 32],
    ['pixtral', 48, 24],
    ['pixtral-merged', 48, 24],
    ['lightonocr', 32, 24],
  ])('%s: the pixels of a rectangle reach its row, and no other', async (name, width, height) => {
    const model = await open(name);
    for (const [row, distances] of await responses(model, noise(width, height))) {
      expect(distances.flatMap((distance, i) => (distance > 0 ? i : []))).toEqual([row]);
    }
  });

  test.each<[string, number]>([
    ['step3vl', 32],
    ['ldp', 96],
    ['ldpv2', 96],
  ])('%s: convolutions reach further, but the row of a rectangle moves most', async (name, side) => {
    const model = await open(name);
    for (const [row, distances] of await responses(model, noise(side, side))) expect(farthest(distances)).toBe(row);
  });

  test.each(['mlp-tiled', 'idefics3', 'internvl', 'llama4'])(
    '%s: every tile is a picture with a grid of its own',
    async (name) => {
      const model = await open(name);
      const image = noise(64, 64); // four tiles of 32 x 32, and the whole picture scaled
      const plain = await encode(model, image);
      expect(plain).toHaveLength(5);
      for (let tile = 0; tile < 4; tile++) {
        const at = { x: 32 * (tile % 2), y: 32 * Math.floor(tile / 2) };
        const { seen, grid } = plain[tile] as Rows;
        const lines = Array.from({ length: 32 }, (_, y) => 3 * ((at.y + y) * 64 + at.x));
        expect(Array.from(seen.data)).toEqual(
          lines.flatMap((from) => Array.from(image.data.subarray(from, from + 96))),
        );
        const rectangle = (grid as PatchRectangle[])[6] as PatchRectangle;
        const changed = await encode(
          model,
          inverted(image, { ...rectangle, x: at.x + rectangle.x, y: at.y + rectangle.y }),
        );
        const reached = plain.map((rows, i) => moved(rows, changed[i] as Rows).flatMap((n, row) => (n > 0 ? row : [])));
        reached.splice(4, 1); // the whole picture, scaled by a filter that reaches over edges
        expect(reached).toEqual([0, 1, 2, 3].map((i) => (i === tile ? [6] : [])));
      }
    },
  );

  test('a projector that pools is refused with the reason', async () => {
    const model = await open('yasa2');
    const prompt = await model.prompt([{ tokens: [5] }, { image: noise(32, 32) }]);
    expect(prompt.pictures[0]).toMatchObject({ seen: noise(32, 32), grid: { reason: expect.stringMatching(/pools/) } });
    await expectError(() => patchRectangle(prompt, prompt.tokens.indexOf(-1)), 'NO_PATCH_GRID', /it pools/);
  });
});

test('pictures that are kept in a folder keep what was seen', async () => {
  const options = { mmproj: fixture('llava.mmproj.gguf'), imageCacheFolder: join(folder, 'cache') };
  const [first, second] = [await load('llava', options), await load('llava', options)];
  const encoded = await encode(first, noise(32, 32));
  expect(await encode(second, noise(32, 32))).toEqual(encoded);
  expect([first.imageEncodes, second.imageEncodes]).toEqual([1, 0]);
});
