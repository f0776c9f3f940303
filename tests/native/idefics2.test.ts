// Idefics2's picture encoder: its numbers, its preprocessing, its cache, and mmproj files that do not fit.
// The model around it is compared in tests/parity.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { idefics2Size } from '../../src/images/encoders/idefics2.js';
import { readImage } from '../../src/images/image.js';
import { patchRectangle } from '../../src/images/patch-grid.js';
import { resizeBilinear } from '../../src/images/resize.js';
import type { LoadOptions } from '../../src/model/model.js';
import { native } from '../../src/native/index.js';
import { SafetensorsFile } from '../../src/util/safetensors.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';
import { put } from './damage.js';
import { cosine, FIXTURES, fixture, load, picture } from './helpers.js';

const folder = await temporaryFolder();
const MMPROJ = readFileSync(fixture('idefics2.mmproj.gguf'));
const open = (options: LoadOptions = {}) => load('idefics2', { vision: true, ...options });

async function expectEmbeddings(actual: (file: string) => Promise<Float32Array>, tolerance: number): Promise<number> {
  const reference = await SafetensorsFile.open(join(FIXTURES, 'idefics2.safetensors'));
  let largest = 0;
  for (const file of ['grid-a.png', 'grid-b.png', 'square-a.png']) {
    const expected = await reference.readFloat32(`${file}.embeddings`);
    const values = await actual(file);
    expect(values.length).toBe(expected.length);
    for (const [k, value] of expected.entries()) largest = Math.max(largest, Math.abs(value - (values[k] as number)));
    expect(cosine(values, expected)).toBeGreaterThan(1 - tolerance ** 1.5);
  }
  await reference.close();
  expect(largest).toBeLessThan(tolerance);
  return largest;
}

// Their values reach 4.
test('embeddings are those of transformers', async () => {
  const model = await open();
  await expectEmbeddings(async (file) => {
    const { segments } = await model.prompt({ image: picture(file) });
    return segments.flatMap((s) => (s.kind === 'image' ? [s.embeddings] : []))[0] as Float32Array;
  }, 2e-5);
});

test('with flash attention, which only larger pictures need, they are close to them', async () => {
  const { addon } = native();
  const weights = await addon.weightsLoad({ path: fixture('idefics2.mmproj.gguf'), device: 'cpu', threads: 1 });
  const largest = await expectEmbeddings(async (file) => {
    const image = await readImage(picture(file));
    const size = idefics2Size(image.width, image.height, { shortestEdge: 56, longestEdge: 72 });
    const { data, width, height } = await resizeBilinear(image, ...size);
    return addon.idefics2Encode(weights, data, width, height, true);
  }, 1e-2);
  await addon.weightsDispose(weights);
  expect(largest).toBeGreaterThan(1e-4); // or it was not used
});

test.each([
  // Of the real model: [378, 980]. What the picture has, what the encoder reads.
  [224, 224, 378, 378],
  [224, 168, 378, 378],
  [168, 500, 378, 500],
  [1, 1, 378, 378],
  [20_000, 20, 980, 378],
  [20, 20_000, 378, 980],
  [1920, 1080, 980, 551],
  [1000, 1000, 980, 980],
])('a picture of %d x %d is read as %d x %d', (width, height, ...expected) => {
  expect(idefics2Size(width, height, { shortestEdge: 378, longestEdge: 980 })).toEqual(expected);
});

test.each([
  [1, 1],
  [20_000, 20],
  [20, 20_000],
])('a picture of %d x %d pixels has its rows', async (width, height) => {
  const model = await open();
  const data = new Uint8Array(width * height * 3).map((_, i) => (i * 7) % 256);
  const prompt = await model.prompt({ image: { data, width, height } });
  const [first] = prompt.pictures;
  expect(first).toMatchObject({ first: 2, nRows: 6 }); // behind BOS and <fake_token_around_image>
  expect(prompt.length).toBe(9);
  expect(() => patchRectangle(prompt, 3)).toThrow(/learned queries that each look at the whole picture/);
});

test('pictures are kept on the disk, for this mmproj', async () => {
  const imageCacheFolder = join(folder, 'cache');
  const encodes = async (mmproj: string) => {
    const model = await open({ imageCacheFolder, mmproj });
    await model.prompt([{ image: picture('grid-a.png') }, 'Q:', { image: picture('grid-a.png') }]);
    return model.imageEncodes;
  };
  const original = fixture('idefics2.mmproj.gguf');
  expect(await encodes(original)).toBe(1);
  expect(await encodes(original)).toBe(0);
  const other = Buffer.from(MMPROJ);
  other.writeFloatLE(1.5, other.length - 64 * 4);
  expect(await encodes(put(folder, 'other.gguf', other))).toBe(1);
});

describe('mmproj files that do not fit', () => {
  /** A copy with other bytes where a text stands in the header, or right behind it. */
  const edited = (name: string, find: string, change: (bytes: Buffer, at: number) => void) => {
    const bytes = Buffer.from(MMPROJ);
    const at = bytes.indexOf(find);
    expect(at).toBeGreaterThan(0);
    change(bytes, at);
    return put(folder, `${name}.gguf`, bytes);
  };
  const value = (key: string, to: number) => (name: string) =>
    edited(name, key, (bytes, at) => bytes.writeUInt32LE(to, at + key.length + 4));
  const cases: [string, (name: string) => string, RegExp][] = [
    [
      'a missing tensor',
      (name) => edited(name, 'v.blk.1.ln2.bias', (bytes, at) => bytes.write('x', at)),
      /no tensor 'v\.blk\.1\.ln2\.bias'/,
    ],
    [
      'a tensor of another shape',
      (name) => edited(name, 'mm.up.weight', (bytes, at) => bytes.writeUInt32LE(24, at + 12 + 4)),
      /'mm\.up\.weight' is 24 x/,
    ],
    ['a key of another value', value('clip.vision.resampler.head_dim', 12), /attn_q\.weight' is/],
    ['heads that do not divide', value('clip.vision.attention.head_count', 5), /5 attention heads/],
    ['no heads', value('clip.vision.resampler.head_count_kv', 0), /head_count_kv is 0/],
    ['more pixels than positions', value('xpatch.idefics2.longest_edge', 5000), /56 to 5000 pixels/],
    ['a picture token that the model has not', value('xpatch.image.begin_token', 5000), /two different tokens/],
  ];
  test.each(cases)('%s', async (name, make, message) => {
    await expectError(() => open({ mmproj: make(name) }), 'MMPROJ_INVALID', message);
  });

  test('of a model without its token, and of a model of another width', async () => {
    const mmproj = fixture('idefics2.mmproj.gguf');
    await expectError(() => load('llama', { mmproj }), 'MMPROJ_INVALID', /no token 360 .* another model/);
    await expectError(() => load('gemma2', { mmproj }), 'MMPROJ_INVALID', /64 numbers, the model's 48/);
  });

  test('half of a download', async () => {
    for (const part of [0.02, 0.5, 0.999]) {
      const path = put(folder, 'half.gguf', MMPROJ.subarray(0, Math.floor(MMPROJ.length * part)));
      await expectError(() => open({ mmproj: path }), 'GGUF_INVALID', /truncated/);
    }
  });

  test('weights that make NaN are told from a picture', async () => {
    const bytes = Buffer.from(MMPROJ);
    bytes.writeFloatLE(Number.NaN, bytes.length - 64 * 4); // in the final norm
    const path = put(folder, 'nan.gguf', bytes);
    const model = await open({ mmproj: path });
    await expectError(() => model.prompt({ image: picture('grid-a.png') }), 'NOT_FINITE', /encoder/);
  });
});
