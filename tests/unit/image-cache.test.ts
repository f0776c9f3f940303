import { createHash } from 'node:crypto';
import { readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { serialize } from 'node:v8';
import { expect, test } from '@jest/globals';
import sharp from 'sharp';
import type { ImageEncoder } from '../../src/images/encoders/encoder.js';
import { imageFacts, readImage } from '../../src/images/image.js';
import { CachedImageEncoder } from '../../src/images/image-cache.js';
import type { RgbImage } from '../../src/prompt/types.js';
import { expectError, temporaryFolder } from './helpers.js';

/** Four numbers and one pixel a picture, so that bytes can be counted. */
const encoder = (): ImageEncoder => ({
  id: 'test',
  encode: async (image) => [
    {
      kind: 'image',
      key: image.hash,
      embeddings: Float32Array.of(...image.data.slice(0, 3), 1),
      nRows: 1,
      nPositions: 1,
      nonCausal: false,
      positions: new Int32Array(0),
      seen: image,
      grid: [{ x: 0, y: 0, width: 1, height: 1 }],
    },
  ],
  layout: async () => [],
  dispose: async () => {},
});
const parent = await temporaryFolder();
const picture = (grey: number) => readImage({ data: new Uint8Array(3).fill(grey), width: 1, height: 1 });

test('a picture is encoded once, also when it is asked for twice at the same time', async () => {
  const cache = new CachedImageEncoder(encoder());
  const [a, b] = await Promise.all([cache.encode(await picture(1)), cache.encode(await picture(1))]);
  await cache.encode(await picture(1));
  expect(cache.encodes).toBe(1);
  expect(a).toBe(b);
});

test('the least recently used picture leaves memory when the bound is exceeded', async () => {
  const cache = new CachedImageEncoder(encoder(), { maxBytes: 2 * (4 * 4 + 3) });
  for (const grey of [1, 2, 1, 3, 1]) await cache.encode(await picture(grey));
  expect(cache.encodes).toBe(3);
  await cache.encode(await picture(2));
  expect(cache.encodes).toBe(4);
});

test('a file is decoded again when it has changed, or when memory has let it go', async () => {
  const file = join(parent, 'picture.png');
  const draw = async (grey: number) =>
    writeFile(
      file,
      await sharp({ create: { width: 1, height: 1, channels: 3, background: { r: grey, g: 0, b: 0 } } })
        .png()
        .toBuffer(),
    );
  const redOf = async (cache: CachedImageEncoder) => {
    const [segment] = await cache.encodeSource(file);
    return segment?.kind === 'image' && segment.seen.data[0];
  };
  const cache = new CachedImageEncoder(encoder());
  await draw(1);
  await utimes(file, 1, 1);
  const first = await cache.encodeSource(file);
  // As long and as old as before: it is taken for the same file, without a look at its pixels.
  await writeFile(file, new Uint8Array((await readFile(file)).length));
  await utimes(file, 1, 1);
  expect(await cache.encodeSource(file)).toBe(first);
  await draw(2);
  expect(await redOf(cache)).toBe(2);
  const forgetful = new CachedImageEncoder(encoder(), { maxBytes: 0 });
  for (let i = 1; i <= 3; i++) {
    expect(await redOf(forgetful)).toBe(2);
    expect(forgetful.encodes).toBe(i);
  }
  await rm(file);
  await expectError(() => cache.encodeSource(file), 'FILE_NOT_FOUND', /picture.png/);
});

test('what is known of a file is its facts at a width, until it changes', async () => {
  const file = join(parent, 'facts.png');
  const write = async (width: number) =>
    writeFile(
      file,
      await sharp({ create: { width, height: 2, channels: 3, background: '#fff' } })
        .png()
        .toBuffer(),
    );
  await write(4);
  await utimes(file, 1, 1);
  const { data, ...own } = await readImage(file);
  expect(data).toHaveLength(4 * 2 * 3);
  const scaled = await imageFacts(file, { width: 8 });
  expect([scaled.width, scaled.height]).toEqual([8, 4]);
  // As long and as old as before, and not a picture: it is not read again.
  await writeFile(file, new Uint8Array((await readFile(file)).length));
  await utimes(file, 1, 1);
  expect(await imageFacts(file)).toEqual(own);
  expect(await imageFacts(file, { width: 8 })).toEqual(scaled);
  await expectError(() => imageFacts(file, { width: 2 }), 'IMAGE_INVALID', /facts.png/);
  await write(6);
  expect(await imageFacts(file)).toMatchObject({ width: 6, height: 2 });
  await rm(file);
  await expectError(() => imageFacts(file), 'FILE_NOT_FOUND', /facts.png/);
});

test('a picture that is being encoded stays, however full the memory is, and leaves it as any other', async () => {
  const inner = encoder();
  const { encode } = inner;
  const gates: (() => void)[] = [];
  let open = false;
  inner.encode = async (image) => {
    if (!open) await new Promise<void>((go) => gates.push(go));
    return encode(image);
  };
  // Room for two pictures of 16 bytes of rows and 3 of pixels.
  const cache = new CachedImageEncoder(inner, { maxBytes: 45 });
  const pictures = await Promise.all([1, 2, 3, 4].map(picture));
  const first = pictures.map((one) => cache.encode(one));
  for (const go of gates.splice(0).reverse()) {
    go();
    await new Promise((done) => setImmediate(done));
    expect(cache.encode(pictures[0] as RgbImage)).toBe(first[0]);
  }
  await Promise.all(first);
  expect(cache.encodes).toBe(4);
  open = true;
  for (const grey of [5, 6, 5, 6]) await cache.encode(await picture(grey));
  expect(cache.encodes).toBe(6);
});

test('rows that are not numbers are an error, and a stored picture of another Node.js is encoded again', async () => {
  const broken = encoder();
  const { encode } = broken;
  broken.encode = async (image) => {
    const segments = await encode(image);
    for (const one of segments) if (one.kind === 'image') one.embeddings[2] = Number.NaN;
    return segments;
  };
  const folder = join(parent, 'not-finite');
  const one = await picture(9);
  await expectError(() => new CachedImageEncoder(broken, { folder }).encode(one), 'NOT_FINITE', /picture encoder/);
  await new CachedImageEncoder(encoder(), { folder }).encode(one);
  const [name] = await readdir(folder);
  const file = join(folder, name as string);
  const body = Buffer.from(await readFile(file)).subarray(32);
  body[1] = 0x7f; // a version of V8's format that no V8 reads
  await writeFile(file, Buffer.concat([createHash('sha256').update(body).digest(), body]));
  const again = new CachedImageEncoder(encoder(), { folder });
  await again.encode(one);
  expect(again.encodes).toBe(1);
});

test('a failed encode is not kept', async () => {
  const inner = encoder();
  const encode = inner.encode;
  inner.encode = () => Promise.reject(new Error('no memory'));
  const cache = new CachedImageEncoder(inner);
  await expect(cache.encode(await picture(1))).rejects.toThrow('no memory');
  inner.encode = encode;
  await expect(cache.encode(await picture(1))).resolves.toHaveLength(1);
});

test('a folder keeps pictures between runs; a damaged file, or one of an older version, is written anew', async () => {
  const folder = join(parent, 'pictures');
  const first = new CachedImageEncoder(encoder(), { folder });
  const encoded = await first.encode(await picture(7));
  const second = new CachedImageEncoder(encoder(), { folder });
  expect(await second.encode(await picture(7))).toEqual(encoded);
  expect(second.encodes).toBe(0);

  const [name] = await readdir(folder);
  const file = join(folder, name as string);
  const bytes = await readFile(file);
  bytes[bytes.length - 1] = (bytes[bytes.length - 1] as number) ^ 1;
  await writeFile(file, bytes);
  const third = new CachedImageEncoder(encoder(), { folder });
  expect(await third.encode(await picture(7))).toEqual(encoded);
  expect(third.encodes).toBe(1);

  // As xpatch wrote them before pictures had a grid: the bare list.
  const old = serialize(encoded.map(({ seen: _, grid: __, ...rest }: Record<string, unknown>) => rest));
  await writeFile(file, Buffer.concat([createHash('sha256').update(old).digest(), old]));
  for (const encodes of [1, 0]) {
    const fourth = new CachedImageEncoder(encoder(), { folder });
    expect(await fourth.encode(await picture(7))).toEqual(encoded);
    expect(fourth.encodes).toBe(encodes);
  }
});

test('a picture in a folder is of one vocabulary', async () => {
  const folder = join(parent, 'vocabularies');
  const encodes = async (id: number) => {
    const tokens = { kind: 'tokens', tokens: Int32Array.of(id) } as const;
    const { encode, ...others } = encoder();
    const cache = new CachedImageEncoder(
      { ...others, encode: async (image) => [tokens, ...(await encode(image))], layout: async () => [tokens] },
      { folder },
    );
    expect((await cache.encode(await picture(1)))[0]).toEqual(tokens);
    return cache.encodes;
  };
  expect([await encodes(7), await encodes(8), await encodes(7), await encodes(8)]).toEqual([1, 1, 0, 0]);
});
