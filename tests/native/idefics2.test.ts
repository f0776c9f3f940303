// Idefics2's picture encoder: its two ways of computing, its preprocessing, its cache, and mmproj files that do not fit.
// The model around it is compared in tests/parity.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { idefics2Size } from '../../src/model/encoders/idefics2.js';
import { type LoadOptions, patchRectangle } from '../../src/model/index.js';
import { SafetensorsFile } from '../../src/vectors/safetensors.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';
import { put } from './damage.js';
import { cosine, FIXTURES, fixture, load, picture } from './helpers.js';

const folder = await temporaryFolder();
const PICTURES = ['grid-a.png', 'grid-b.png', 'square-a.png'];
const MMPROJ = readFileSync(fixture('idefics2.mmproj.gguf'));
const open = (options: LoadOptions = {}) => load('idefics2', { vision: true, ...options });

async function embeddings(options: LoadOptions): Promise<Float32Array[]> {
  const model = await open(options);
  const prompts = await Promise.all(PICTURES.map((name) => model.prompt({ image: picture(name) })));
  return prompts.flatMap(({ segments }) => segments.flatMap((s) => (s.kind === 'image' ? [s.embeddings] : [])));
}

describe('embeddings against transformers', () => {
  // The values reach 4. Measured: 5e-6 and 3.7e-3.
  test.each([
    ['exact', true, 2e-5, 1 - 1e-9],
    ['fast', false, 2e-2, 0.9999],
  ])('%s', async (_, exactImages, tolerance, least) => {
    const reference = await SafetensorsFile.open(join(FIXTURES, 'idefics2.safetensors'));
    const actual = await embeddings({ exactImages });
    let largest = 0;
    for (const [i, name] of PICTURES.entries()) {
      const expected = await reference.readFloat32(`${name}.embeddings`);
      const values = actual[i] as Float32Array;
      expect(values.length).toBe(expected.length);
      for (const [k, value] of expected.entries()) largest = Math.max(largest, Math.abs(value - (values[k] as number)));
      expect(cosine(values, expected)).toBeGreaterThan(least);
    }
    await reference.close();
    expect(largest).toBeLessThan(tolerance);
    // The fast way is another one, or the option would do nothing.
    expect(largest > 1e-4).toBe(!exactImages);
  });
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

test('pictures are kept on the disk by the settings of the encoder', async () => {
  const imageCacheFolder = join(folder, 'cache');
  const encodes = async (exactImages: boolean) => {
    const model = await open({ imageCacheFolder, exactImages });
    await model.prompt([{ image: picture('grid-a.png') }, 'Q:', { image: picture('grid-a.png') }]);
    return model.imageEncodes;
  };
  expect(await encodes(false)).toBe(1);
  expect(await encodes(false)).toBe(0);
  expect(await encodes(true)).toBe(1);
  expect(await encodes(true)).toBe(0);
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
    await expectError(() => load('gemma2', { mmproj }), 'MMPROJ_INVALID', /64 numbers, those of the model 48/);
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
