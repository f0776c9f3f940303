import { existsSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { checkpointName, sizeLabel } from '../../src/convert/general.js';
import { parseSentencePiece } from '../../src/convert/sentencepiece.js';
import { readGgufHeader } from '../../src/gguf/gguf.js';
import { type GgufField, layOutGguf } from '../../src/gguf/gguf-writer.js';
import { splitPaths } from '../../src/gguf/split.js';
import { textType } from '../../src/gguf/tensor-types.js';
import { expectError, temporaryFolder } from './helpers.js';

const folder = await temporaryFolder();

describe('a GGUF header', () => {
  const metadata: Record<string, GgufField> = {
    'general.architecture': { type: 'string', value: 'test' },
    e: { type: 'u32', value: 2 ** 32 - 1 },
    f: { type: 'i32', value: -(2 ** 31) },
    g: { type: 'f32', value: 0.1 },
    h: { type: 'bool', value: true },
    texts: { type: 'string', list: ['', 'åß🙂', 'x'.repeat(300_000)] },
    flags: { type: 'bool', list: [true, false] },
    numbers: { type: 'f32', list: Float32Array.of(1.5, -2) },
  };

  test('is read once while its file stays as it is, and each time while it is being written', () => {
    const path = join(folder, 'again.gguf');
    const write = (value: number) => writeFileSync(path, layOutGguf({ a: { type: 'u32', value } }, []).header);
    write(1);
    expect(readGgufHeader(path).metadata.get('a')).toBe(1);
    write(2); // of the same size, maybe within the same tick
    expect(readGgufHeader(path).metadata.get('a')).toBe(2);
    const settle = () => utimesSync(path, 1, 1);
    settle();
    expect(readGgufHeader(path)).toBe(readGgufHeader(path));
    write(3);
    settle();
    expect(readGgufHeader(path).metadata.get('a')).toBe(3);
  });

  test('is read back as it was written, values and places', () => {
    const tensors = [
      { name: 'first', shape: [3, 5], type: 0 },
      { name: 'second', shape: [256, 2], type: 12 },
      { name: 'third', shape: [1], type: 1 },
    ];
    const { header, places, size } = layOutGguf(metadata, tensors);
    const path = join(folder, 'all.gguf');
    writeFileSync(path, Buffer.concat([header, Buffer.alloc(size - header.length)]));
    const read = readGgufHeader(path);
    expect(Object.fromEntries(read.metadata)).toMatchObject({
      e: 2 ** 32 - 1,
      f: -(2 ** 31),
      g: Math.fround(0.1),
      h: true,
      flags: { values: [true, false] },
      numbers: { values: [1.5, -2] },
    });
    const texts = read.metadata.get('texts') as { values: string[] };
    expect(texts.values.map((text) => Buffer.from(text, 'latin1').toString())).toEqual([
      '',
      'åß🙂',
      'x'.repeat(300_000),
    ]);
    expect(read.tensors.map(({ name, shape, type }) => ({ name, shape, type }))).toEqual(tensors);
    expect(places.map(({ bytes }) => bytes)).toEqual([60, 288, 2]);
    expect(places.map(({ offset }) => (offset - header.length) % 32)).toEqual([0, 0, 0]);
    expect(read.tensors.map(({ offset }) => offset + header.length)).toEqual(places.map(({ offset }) => offset));
    expect(size % 32).toBe(0);
  });

  test('values and shapes that cannot be written are refused', async () => {
    for (const field of [
      { type: 'u32', value: -1 },
      { type: 'f32', value: 1e39 },
      { type: 'f32', list: [0, Number.NaN] },
    ] as const) {
      await expectError(() => layOutGguf({ key: field }, []), 'INVALID_ARGUMENT', /key cannot be written/);
    }
    for (const tensor of [
      { name: 'x', shape: [100], type: 12 },
      { name: 'x', shape: [], type: 0 },
      { name: 'x', shape: [1], type: 99 },
    ]) {
      await expectError(() => layOutGguf({}, [tensor]), 'INVALID_ARGUMENT', /x cannot have the shape/);
    }
    const twice = { name: 'x', shape: [1], type: 0 };
    await expectError(() => layOutGguf({}, [twice, twice]), 'INVALID_ARGUMENT', /appears twice/);
  });
});

describe('a GGUF of other programs', () => {
  const u32 = (value: number) => Buffer.from(Uint32Array.of(value).buffer);
  const u64 = (value: number | bigint) => Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
  const str = (value: string) => Buffer.concat([u64(value.length), Buffer.from(value)]);
  /** With metadata of these keys, types and bytes, and no tensors. */
  const write = (...pairs: [key: string, type: number, bytes: Buffer][]) => {
    const path = join(folder, `other${files++}.gguf`);
    const body = pairs.flatMap(([key, type, bytes]) => [str(key), u32(type), bytes]);
    writeFileSync(path, Buffer.concat([Buffer.from('GGUF'), u32(3), u64(0), u64(pairs.length), ...body]));
    return path;
  };
  let files = 0;

  test('may have numbers of all types', () => {
    const bytes = Buffer.alloc(8, 0xff);
    const path = write(
      ...([0, 1, 2, 3, 10, 11] as const).map((type): [string, number, Buffer] => {
        const size = { 0: 1, 1: 1, 2: 2, 3: 2, 10: 8, 11: 8 }[type];
        return [String(type), type, bytes.subarray(0, size)];
      }),
      ['12', 12, Buffer.from(Float64Array.of(0.1).buffer)],
    );
    expect([...readGgufHeader(path).metadata.values()]).toEqual([255, -1, 65535, -1, 2n ** 64n - 1n, -1n, 0.1]);
  });

  test('with a vocabulary of numbers is refused', async () => {
    const path = write(['tokenizer.ggml.tokens', 9, Buffer.concat([u32(4), u64(1), u32(7)])]);
    await expectError(() => readGgufHeader(path), 'GGUF_INVALID', /tokenizer\.ggml\.tokens is not a list of texts/);
  });

  test('with texts of a size that no text has is refused before they are read', async () => {
    const sized = (path: string) => {
      truncateSync(path, 3e9);
      return path;
    };
    const long = u64(6e8);
    const list = Buffer.concat([u32(8), u64(1), u64(2 ** 21)]);
    for (const [path, message] of [
      [write(['general.name', 8, long]), /general\.name has 600000000 bytes, more than/],
      [write(['general.tags', 9, list]), /general\.tags has 2097152 bytes/],
      [write(['tokenizer.ggml.tokens', 9, list]), /tokens has 2097152 bytes/],
    ] as const) {
      await expectError(() => readGgufHeader(sized(path)), 'GGUF_INVALID', message);
    }
    const path = join(folder, 'key.gguf');
    writeFileSync(path, Buffer.concat([Buffer.from('GGUF'), u32(3), u64(0), u64(1), long]));
    await expectError(() => readGgufHeader(sized(path)), 'GGUF_INVALID', /metadata key has 600000000 bytes/);
  });

  // Its size is said to be 4096 bytes, and reading ends much earlier: as a file that shrinks after it was asked for its size.
  const SHORT = '/sys/devices/system/cpu/online';
  (existsSync(SHORT) ? test : test.skip)('that is shorter than its size is refused', async () => {
    await expectError(() => readGgufHeader(SHORT), 'GGUF_INVALID', /was cut off in magic while it was read/);
  });

  test('is one of parts only where there are any', () => {
    expect(splitPaths('x-00001-of-00002.gguf')).toEqual(['x-00001-of-00002.gguf', 'x-00002-of-00002.gguf']);
    expect(splitPaths('x-00001-of-00000.gguf')).toEqual(['x-00001-of-00000.gguf']);
  });
});

// Of llama_tensor_get_type in llama.cpp's src/llama-quant.cpp, and seen in a file of llama-quantize for 9 blocks.
test('the mixture Q4_K_M gives more bits to the outer blocks and every third between', () => {
  const better = Array.from(
    { length: 32 },
    (_, i) => textType('q4_k', `blk.${i}.attn_v.weight`, [4096, 1024], 32).type,
  );
  expect(better.flatMap((type, i) => (type === 'Q6_K' ? [i] : []))).toEqual([
    0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31,
  ]);
  expect(textType('q4_k', 'blk.0.attn_k.weight', [4096, 1024], 32)).toEqual({ type: 'Q4_K' });
  expect(textType('q4_k', 'output.weight', [4096, 32000], 32)).toEqual({ type: 'Q6_K' });
  expect(textType('q4_k', 'output.weight', [64, 32000], 32)).toEqual({ type: 'Q8_0', instead: 'Q6_K' });
  expect(textType('q4_k', 'blk.9.attn_q.weight', [48, 48], 32)).toEqual({ type: 'F16', instead: 'Q4_K' });
  expect(textType('q4_k', 'blk.0.attn_norm.weight', [4096], 32)).toEqual({ type: 'F32' });
});

test('sizes are labelled as gguf’s Python package does', () => {
  expect([999, 128_000, 1_000_000, 7_241_000_000, 8_402_768_112, 1.2e12].map(sizeLabel)).toEqual([
    '1.0K',
    '128K',
    '1000K',
    '7.2B',
    '8.4B',
    '1.2T',
  ]);
});

test('a checkpoint is named after its folder, or its model in the cache of the hub', () => {
  expect(checkpointName('/data/idefics2-8b/')).toBe('idefics2-8b');
  expect(checkpointName('/c/models--HuggingFaceM4--idefics2-8b/snapshots/2c0_1f')).toBe('idefics2-8b');
  expect(checkpointName('/data/my model; rm -rf')).toBe('my-model-rm--rf');
  expect(checkpointName('/')).toBe('model');
});

test('a SentencePiece model that ends early, or holds something else, is refused', () => {
  const piece = Buffer.from([0x0a, 0x08, 0x0a, 0x01, 0x61, 0x15, 0, 0, 0x80, 0xbf]);
  const pieces = [{ text: 'a', score: -1, type: 1 }];
  expect(parseSentencePiece(piece)).toEqual({ pieces, isUnigram: true });
  const trainer = Buffer.from([0x12, 0x02, 0x18, 0x02]);
  expect(parseSentencePiece(Buffer.concat([piece, trainer]))).toEqual({ pieces, isUnigram: false });
  expect(() => parseSentencePiece(piece.subarray(0, 7))).toThrow(/ends inside/);
  expect(() => parseSentencePiece(Buffer.from([0x0a, 0x02, 0x18, 0x09]))).toThrow(/type 9/);
  expect(() => parseSentencePiece(Buffer.from('not a model'))).toThrow();
  expect(() => parseSentencePiece(Buffer.alloc(0))).toThrow(/no pieces/);
});
