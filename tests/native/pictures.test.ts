// Pictures of every kind that people have, and some that attackers have; made here with sharp. The encoder, which takes any
// size, is tried in another process with sizes that break naive arithmetic.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { crc32, gzipSync } from 'node:zlib';
import { afterAll, describe, expect, test } from '@jest/globals';
import sharp, { type Colour } from 'sharp';
import { drawSvg, isSvg } from '../../src/images/draw-svg.js';
import { readImage } from '../../src/images/image.js';
import type { ImageSource } from '../../src/prompt/types.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';
import { Attempts, put } from './damage.js';
import { fixture } from './helpers.js';

const folder = await temporaryFolder();
const attempts = new Attempts();
afterAll(() => attempts.close());

const RED = { r: 255, g: 0, b: 0 };
const solid = (width: number, height: number, background: object = RED, channels: 3 | 4 = 3) =>
  sharp({ create: { width, height, channels, background: background as Colour }, limitInputPixels: false });
/** A TIFF of 4 x 4 pixels, of numbers of a kind that sharp does not write. */
function tiffOf(pixels: Float32Array | Int32Array): Buffer {
  const bits = pixels.BYTES_PER_ELEMENT * 8;
  const format = pixels instanceof Int32Array ? 2 : 3;
  const data = Buffer.from(pixels.buffer, pixels.byteOffset, pixels.byteLength);
  // Width, height, bits, no compression, RGB, where the data is, samples, rows a strip, bytes, kind of number: all of one strip.
  const tags = [
    [256, 4],
    [257, 4],
    [258, bits],
    [259, 1],
    [262, 2],
    [273, 8],
    [277, 3],
    [278, 4],
    [279, data.length],
    [339, format],
  ];
  const directory = Buffer.alloc(2 + tags.length * 12 + 4 + 12);
  directory.writeUInt16LE(tags.length, 0);
  const extra = 8 + data.length + 2 + tags.length * 12 + 4;
  tags.forEach(([tag, value], i) => {
    const three = tag === 258 || tag === 339; // one a sample, behind the directory
    directory.writeUInt16LE(tag as number, 2 + i * 12);
    directory.writeUInt16LE(three ? 3 : 4, 4 + i * 12);
    directory.writeUInt32LE(three ? 3 : 1, 6 + i * 12);
    directory.writeUInt32LE(three ? extra + (tag === 339 ? 6 : 0) : (value as number), 10 + i * 12);
    if (three)
      for (let s = 0; s < 3; s++)
        directory.writeUInt16LE(value as number, directory.length - 12 + (tag === 339 ? 6 : 0) + s * 2);
  });
  const head = Buffer.from('II*\0\0\0\0\0', 'latin1');
  head.writeUInt32LE(8 + data.length, 4);
  return Buffer.concat([head, data, directory]);
}
/** Left half red, right half blue. */
const halves = (width = 8, height = 4) =>
  solid(width, height)
    .composite([
      {
        input: { create: { width: width / 2, height, channels: 3, background: { r: 0, g: 0, b: 255 } } },
        left: width / 2,
        top: 0,
      },
    ])
    .removeAlpha();
const pixel = (image: { data: Uint8Array; width: number }, x: number, y: number) =>
  Array.from(image.data.subarray((y * image.width + x) * 3, (y * image.width + x) * 3 + 3));
const near = (actual: number[], expected: number[], tolerance = 6) =>
  expect(actual.map((value, i) => Math.abs(value - (expected[i] as number)) <= tolerance)).toEqual([true, true, true]);

describe('what is decoded', () => {
  test('PNG from a path, a buffer, a data: URL and raw RGB give the same pixels and the same hash', async () => {
    const png = await halves().png().toBuffer();
    const path = put(folder, 'halves.png', png);
    const raw = { data: await halves().raw().toBuffer(), width: 8, height: 4 };
    const url = `data:image/png;base64,${png.toString('base64')}`;
    const [first, ...others] = await Promise.all(
      [path, png, new Uint8Array(png), url, raw].map((source) => readImage(source)),
    );
    expect(first).toMatchObject({ width: 8, height: 4 });
    expect(pixel(first as NonNullable<typeof first>, 0, 0)).toEqual([255, 0, 0]);
    expect(pixel(first as NonNullable<typeof first>, 7, 3)).toEqual([0, 0, 255]);
    for (const other of others) expect(other).toEqual(first);
  });

  test('1 x 1', async () => {
    expect(await readImage(await solid(1, 1).png().toBuffer())).toMatchObject({
      width: 1,
      height: 1,
      data: Uint8Array.of(255, 0, 0),
    });
  });

  test('very wide', async () => {
    const image = await readImage(await solid(20_000, 20).png().toBuffer());
    expect(image).toMatchObject({ width: 20_000, height: 20 });
    expect(image.data).toHaveLength(20_000 * 20 * 3);
  });

  test('CMYK JPEG', async () => {
    const image = await readImage(await halves(64, 32).toColourspace('cmyk').jpeg({ quality: 95 }).toBuffer());
    near(pixel(image, 5, 16), [255, 0, 0], 60); // through two colour profiles
    expect(pixel(image, 58, 16)[2]).toBeGreaterThan(pixel(image, 58, 16)[0] as number);
  });

  test('16-bit PNG', async () => {
    const image = await readImage(await halves().toColourspace('rgb16').png().toBuffer());
    near(pixel(image, 0, 0), [255, 0, 0], 1);
    near(pixel(image, 7, 0), [0, 0, 255], 1);
  });

  test('grey, grey with alpha, and 16-bit grey', async () => {
    const grey = { width: 2, height: 1 };
    const one = await sharp(Buffer.from([0, 200]), { raw: { ...grey, channels: 1 } })
      .png()
      .toBuffer();
    expect(Array.from((await readImage(one)).data)).toEqual([0, 0, 0, 200, 200, 200]);
    const two = await sharp(Buffer.from([0, 255, 0, 0]), { raw: { ...grey, channels: 2 } })
      .png()
      .toBuffer();
    expect(Array.from((await readImage(two)).data)).toEqual([0, 0, 0, 255, 255, 255]); // transparent shows white
    const deep = await sharp(Buffer.from([0, 200]), { raw: { ...grey, channels: 1 } })
      .toColourspace('grey16')
      .png()
      .toBuffer();
    near(pixel(await readImage(deep), 1, 0), [200, 200, 200], 1);
  });

  test('transparency over white', async () => {
    const image = await readImage(
      await solid(2, 2, { ...RED, alpha: 0.5 }, 4)
        .png()
        .toBuffer(),
    );
    near(pixel(image, 0, 0), [255, 127, 127], 2);
  });

  test.each(['gif', 'webp'] as const)('the first frame of an animated %s', async (format) => {
    const frames = Buffer.concat([
      await solid(4, 4).raw().toBuffer(),
      await solid(4, 4, { r: 0, g: 255, b: 0 }).raw().toBuffer(),
    ]);
    const animation = sharp(frames, { raw: { width: 4, height: 8, channels: 3, pageHeight: 4 } });
    const file = await (format === 'gif'
      ? animation.gif({ delay: 100 })
      : animation.webp({ lossless: true })
    ).toBuffer();
    expect((await sharp(file).metadata()).pages).toBe(2);
    const image = await readImage(file);
    expect(image).toMatchObject({ width: 4, height: 4 });
    near(pixel(image, 0, 0), [255, 0, 0]);
  });

  test('JPEG turned by EXIF', async () => {
    const turned = await halves(64, 32).withMetadata({ orientation: 6 }).jpeg({ quality: 95 }).toBuffer();
    const image = await readImage(turned); // 6: turned clockwise, so left becomes top
    expect(image).toMatchObject({ width: 32, height: 64 });
    near(pixel(image, 16, 5), [255, 0, 0], 12);
    near(pixel(image, 16, 58), [0, 0, 255], 12);
  });

  test('SVG, also as text in a data: URL', async () => {
    const svg =
      '<svg xmlns="http://www.w3.org/2000/svg" width="6" height="4"><rect width="6" height="4" fill="red"/></svg>';
    for (const source of [Buffer.from(svg), `data:image/svg+xml,${encodeURIComponent(svg)}`]) {
      expect(await readImage(source)).toMatchObject({ width: 6, height: 4 });
      near(pixel(await readImage(source), 3, 2), [255, 0, 0], 1);
    }
  });

  test('from everything that JavaScript holds pictures in', async () => {
    const png = await halves().png().toBuffer();
    const path = put(folder, 'halves.png', png);
    const { hash } = await readImage(path);
    const plain = new Uint8Array(png);
    const shared = new Uint8Array(new SharedArrayBuffer(png.length));
    shared.set(png);
    const sources: Record<string, ImageSource> = {
      'a file: URL': pathToFileURL(path),
      'a file: URL as text': pathToFileURL(path).href,
      'a data: URL': new URL(`data:image/png;base64,${png.toString('base64')}`),
      'an ArrayBuffer': plain.buffer,
      'a Blob': new Blob([plain]),
      'a File': new File([plain], 'halves.png'),
      'a Buffer': png,
      'bytes that are clamped': new Uint8ClampedArray(plain) as unknown as Uint8Array,
      'a view into a larger array': new Uint8Array([...plain, 1, 2, 3]).subarray(0, plain.length),
      'shared memory': shared,
      'raw bytes that are clamped': { data: Uint8ClampedArray.from((await readImage(path)).data), width: 8, height: 4 },
    };
    for (const [what, source] of Object.entries(sources)) {
      expect([what, (await readImage(source)).hash]).toEqual([what, hash]);
    }
  });

  test('16-bit and grey TIFF', async () => {
    const wide = await halves().toColourspace('rgb16').tiff().toBuffer();
    near(pixel(await readImage(wide), 1, 1), [255, 0, 0]);
    const grey = await solid(4, 4, { r: 128, g: 128, b: 128 }).toColourspace('b-w').tiff().toBuffer();
    near(pixel(await readImage(grey), 1, 1), [128, 128, 128]);
  });

  test('gzipped SVG, and SVG with a byte order mark', async () => {
    const svg =
      '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"><rect width="4" height="4" fill="red"/></svg>';
    near(pixel(await readImage(gzipSync(svg)), 1, 1), [255, 0, 0], 0);
    near(pixel(await readImage(Buffer.from(`\ufeff\n${svg}`)), 1, 1), [255, 0, 0], 0);
  });

  test('scaled to a width, aspect kept', async () => {
    expect(await readImage(await halves(80, 40).png().toBuffer(), { width: 24 })).toMatchObject({
      width: 24,
      height: 12,
    });
  });
});

describe('what is refused', () => {
  test('files that break off', async () => {
    const noise = sharp({
      create: {
        width: 80,
        height: 80,
        channels: 3,
        background: RED,
        noise: { type: 'gaussian', mean: 120, sigma: 40 },
      },
    });
    for (const file of [await noise.clone().png().toBuffer(), await noise.clone().jpeg().toBuffer()]) {
      for (const part of [0.02, 0.3, 0.9]) {
        const cut = file.subarray(0, Math.ceil(file.length * part));
        await expectError(() => readImage(cut), 'IMAGE_INVALID', /cannot be read as a picture/);
      }
    }
  });

  test.each<[string, () => ImageSource, 'IMAGE_INVALID' | 'FILE_NOT_FOUND', RegExp]>([
    ['no bytes', () => Buffer.alloc(0), 'IMAGE_INVALID', /cannot be read/],
    ['text', () => Buffer.from('no picture at all'), 'IMAGE_INVALID', /cannot be read/],
    ['a GGUF file', () => fixture('llama.gguf'), 'IMAGE_INVALID', /cannot be read/],
    ['no file', () => join(folder, 'absent.png'), 'FILE_NOT_FOUND', /absent\.png/],
    ['a folder', () => folder, 'IMAGE_INVALID', /it is a folder/],
    ['a data: URL of text', () => 'data:text/plain,hello', 'IMAGE_INVALID', /data:image/],
    ['a data: URL without a comma', () => 'data:image/png;base64', 'IMAGE_INVALID', /comma/],
    ['a data: URL with broken escapes', () => 'data:image/svg+xml,%E0%A4%A', 'IMAGE_INVALID', /not an escape/],
    [
      'too few raw bytes',
      () => ({ data: new Uint8Array(11), width: 2, height: 2 }),
      'IMAGE_INVALID',
      /11 bytes for 2 x 2/,
    ],
    ['too many raw bytes', () => ({ data: new Uint8Array(16), width: 2, height: 2 }), 'IMAGE_INVALID', /16 bytes/],
    ['a raw picture of no size', () => ({ data: new Uint8Array(0), width: 0, height: 0 }), 'IMAGE_INVALID', /0 x 0/],
    [
      'a raw picture of half pixels',
      () => ({ data: new Uint8Array(3), width: 0.5, height: 2 }),
      'IMAGE_INVALID',
      /0\.5/,
    ],
    ['no raw data', () => ({ width: 1, height: 1 }) as unknown as ImageSource, 'IMAGE_INVALID', /must be bytes/],
  ])('%s', async (_, source, code, message) => {
    await expectError(() => readImage(source()), code, message);
  });

  test('pictures of more pixels than a computer likes, before they are decoded', async () => {
    // A PNG of one pixel that says it has 30000 x 30000.
    const bomb = await solid(1, 1).png().toBuffer();
    bomb.writeUInt32BE(30_000, 16);
    bomb.writeUInt32BE(30_000, 20);
    bomb.writeUInt32BE(crc32(bomb.subarray(12, 29)), 29);
    await expectError(() => readImage(bomb), 'IMAGE_INVALID', /pixel limit of \d+ million\. Make it smaller/);
    const svg =
      '<svg xmlns="http://www.w3.org/2000/svg" width="1000000" height="1000000"><rect width="9" height="9"/></svg>';
    await expectError(() => readImage(Buffer.from(svg)), 'IMAGE_INVALID', /pixel limit/);
  });

  test('pictures that would be of so many pixels when they are scaled', async () => {
    const tall = await solid(20, 2000).png().toBuffer();
    expect(await readImage(tall, { width: 224 })).toMatchObject({ width: 224, height: 22_400 });
    await expectError(() => readImage(tall, { width: 1000 }), 'IMAGE_INVALID', /20 x 2000 pixels is too large/);
  });

  test('what an SVG refers to outside itself is neither read nor fetched', async () => {
    const secret = put(folder, 'secret.png', await solid(4, 4, { r: 0, g: 0, b: 255 }).png().toBuffer());
    const svg = (href: string) =>
      `<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="4" height="4"><rect width="4" height="4" fill="red"/><image xlink:href="${href}" width="4" height="4"/></svg>`;
    for (const href of [`file://${secret}`, secret, 'secret.png', 'http://127.0.0.1:9/x.png']) {
      const file = put(folder, 'refers.svg', Buffer.from(svg(href)));
      for (const source of [file, Buffer.from(svg(href))]) {
        const image = await readImage(source).catch((error) => error as { code: string });
        if ('code' in image) expect(image.code).toBe('IMAGE_INVALID');
        else near(pixel(image, 2, 2), [255, 0, 0], 1);
      }
    }
  });

  test.each(['float', 'int'] as const)('a TIFF of type %s, whose white is not known', async (depth) => {
    const kinds = { float: Float32Array, int: Int32Array };
    const pixels = new kinds[depth](48).fill(1);
    await expectError(() => readImage(tiffOf(pixels)), 'IMAGE_INVALID', new RegExp(`type ${depth}.*Convert it to PNG`));
  });

  test('numbers of other types than bytes', async () => {
    const data = new Float32Array(12).fill(0.5) as unknown as Uint8Array;
    await expectError(
      () => readImage({ data, width: 2, height: 2 }),
      'IMAGE_INVALID',
      /Uint8Array, 0 to 255, not a Float32Array/,
    );
    await expectError(() => readImage(data), 'IMAGE_INVALID', /not a Float32Array/);
    await expectError(() => readImage([1, 2, 3] as unknown as Uint8Array), 'IMAGE_INVALID', /must be bytes/);
    await expectError(() => readImage(null as unknown as Uint8Array), 'IMAGE_INVALID', /not null/);
    await expectError(() => readImage(new URL('https://localhost/x.png')), 'IMAGE_INVALID', /not fetched/);
  });

  test.each([
    ['a BMP', Buffer.from('BM\x46\0\0\0\0\0\0\0\x36\0\0\0', 'latin1')],
    ['a PPM', Buffer.from('P6\n1 1\n255\nabc')],
    ['a PPM', Buffer.from('P3 1 1 255 1 2 3')],
    ['a TGA', Buffer.from([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 24, 0, 1, 2, 3])],
    ['an ICO', Buffer.from([0, 0, 1, 0, 1, 0, 16, 16, 0, 0, 1, 0, 32, 0])],
    ['a JPEG 2000', Buffer.from('\0\0\0\x0cjP  \r\n\x87\n', 'latin1')],
    ['a JPEG XL', Buffer.from([0xff, 0x0a, 0, 0])],
    ['a HEIC', Buffer.from('\0\0\0\x18ftypheic\0\0\0\0mif1heic', 'latin1')],
    ['a Photoshop', Buffer.from('8BPS\0\x01')],
  ])('%s file is named, with the way out', (name, bytes) =>
    expectError(() => readImage(bytes), 'IMAGE_INVALID', new RegExp(`it is ${name}.* file\\. Convert it to PNG`)),
  );

  test('an SVG whose filter would take hours ends in time, and the thread of the caller is free meanwhile', async () => {
    const filter = '<filter id="f"><feTurbulence baseFrequency="0.05" numOctaves="500000"/></filter>';
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="4000" height="4000">${filter}<rect width="4000" height="4000" filter="url(#f)"/></svg>`;
    expect(isSvg(Buffer.from(svg))).toBe(true);
    await expect(drawSvg(Buffer.from(svg), { maxPixels: 64e6, maxSeconds: 2 })).rejects.toThrow(
      /longer than 2 seconds/,
    );
  }, 60_000);

  test.each(['png', 'jpeg', 'gif', 'webp', 'tiff', 'avif'] as const)(
    'a %s is not an SVG, whatever bytes are in it',
    async (format) => {
      const bytes = await solid(9, 9).toFormat(format).toBuffer();
      expect(isSvg(Buffer.concat([bytes, Buffer.from('<\0s\0v\0g\0 <svg xmlns')]))).toBe(false);
      expect(isSvg(Buffer.concat([Buffer.from('<svg/>'), bytes]))).toBe(true);
    },
  );

  test('an SVG that nests itself a billion times ends in time', async () => {
    const uses = Array.from(
      { length: 30 },
      (_, i) => `<g id="g${i + 1}">${`<use href="#g${i}"/>`.repeat(10)}</g>`,
    ).join('');
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><defs><rect id="g0" width="1" height="1"/>${uses}</defs><use href="#g30"/></svg>`;
    await expectError(() => readImage(Buffer.from(svg)), 'IMAGE_INVALID', /exceeded|longer than/); // librsvg's own bound, or ours
  }, 60_000);
});

describe('the encoders with pictures of unusual shape', () => {
  const sizes = [
    [1, 1],
    [1, 2000],
    [2000, 1],
    [20_000, 20],
    [1, 20_000],
    [3, 500],
    [33, 31],
    [1500, 1500],
  ] as const;
  test.each(['llava', 'llava-siglip', 'gemma3', 'qwen2-vl', 'idefics2', 'smolvlm'])(
    '%s',
    async (name) => {
      for (const [width, height] of sizes) {
        const path = join(folder, `${width}x${height}.png`);
        writeFileSync(path, await solid(width, height).png().toBuffer());
        const attempt = {
          model: fixture(`${name}.gguf`),
          mmproj: fixture(`${name}.mmproj.gguf`),
          picture: path,
          tokens: [10, 88],
        };
        const { outcome } = await attempts.run(attempt, 60_000);
        expect([`${width}x${height}`, outcome]).toEqual([
          `${width}x${height}`,
          expect.stringMatching(/^(loaded|IMAGE_INVALID|IMAGE_UNSUPPORTED|CONTEXT_OVERFLOW)$/),
        ]);
      }
    },
    200_000,
  );
});
