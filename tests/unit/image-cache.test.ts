import { createHash } from 'node:crypto';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { serialize } from 'node:v8';
import { expect, test } from '@jest/globals';
import type { ImageEncoder } from '../../src/model/encoders/index.js';
import { readImage } from '../../src/model/image.js';
import { CachedImageEncoder } from '../../src/model/image-cache.js';
import { temporaryFolder } from './helpers.js';

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
