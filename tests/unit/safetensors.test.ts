import { readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import { SafetensorsFile, writeSafetensors } from '../../src/util/safetensors.js';
import { expectError, temporaryFolder } from './helpers.js';

const folder = await temporaryFolder();
// Made by tests/reference/make_safetensors.py.
const PYTHON_FILE = fileURLToPath(new URL('../fixtures/safetensors/python.safetensors', import.meta.url));

let files = 0;
async function fileOf(header: string | Uint8Array, data: Uint8Array = new Uint8Array(0)): Promise<string> {
  const path = join(folder, `${files++}.safetensors`);
  const bytes = Buffer.from(header as string);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.length));
  await writeFile(path, Buffer.concat([length, bytes, data]));
  return path;
}

describe('reading', () => {
  test('every type as Python wrote it', async () => {
    await using file = await SafetensorsFile.open(PYTHON_FILE);
    expect(file.metadata).toEqual({ greeting: 'grüß "Gott"', layers: '[0, 1]' });
    expect(file.tensors.get('f32')).toMatchObject({ dtype: 'F32', shape: [2, 3], length: 6, bytes: 24 });
    expect(await file.read('f32')).toEqual(new Float32Array([1.5, -2.25, 3e-20, 0, -0, 6.5e30]));
    const half = [2 ** -24, -(2 ** -14), 65504, Number.POSITIVE_INFINITY, 1 + 2 ** -10, -0.333251953125];
    expect(await file.read('f16')).toEqual(new Float32Array(half));
    expect(await file.read('bf16')).toEqual(new Float32Array([1, -3.140625, 2 ** 127, Number.NEGATIVE_INFINITY]));
    expect(await file.read('f64')).toEqual(new Float64Array([0.1, -1e300]));
    expect(await file.read('i64')).toEqual(new BigInt64Array([2n ** 62n, -1n]));
    expect(await file.read('i32')).toEqual(new Int32Array([7, -7]));
    expect(await file.read('i16')).toEqual(new Int16Array([-32768, 32767]));
    expect(await file.read('i8')).toEqual(new Int8Array([-128, 127, 5]));
    expect(await file.read('u8')).toEqual(new Uint8Array([0, 255]));
    expect(await file.read('bool')).toEqual(new Uint8Array([1, 0]));
    expect(file.tensors.get('scalar')?.shape).toEqual([]);
    expect(await file.readFloat32('scalar')).toEqual(new Float32Array([42]));
    expect(file.tensors.get('empty')?.shape).toEqual([0, 4]);
    expect(await file.readFloat32('empty')).toEqual(new Float32Array(0));
    expect(await file.readFloat32('f64')).toEqual(new Float32Array([0.1, Number.NEGATIVE_INFINITY]));
  });

  test('wrong requests', async () => {
    const file = await SafetensorsFile.open(PYTHON_FILE);
    await expectError(() => file.read('nope'), 'SAFETENSORS_INVALID', /no tensor "nope", only "[a-z0-9]+",/);
    await expectError(() => file.readFloat32('i32'), 'SAFETENSORS_INVALID', /"i32" holds I32, where floats are needed/);
    await file.close();
    await file.close();
    await expectError(() => file.read('f32'), 'DISPOSED', /closed/);
    await expectError(() => SafetensorsFile.open(join(folder, 'none')), 'FILE_NOT_FOUND', /none/);
    await expectError(() => SafetensorsFile.open(folder), 'SAFETENSORS_INVALID', /it is a folder/);
  });

  test('a file that shrinks after it was opened', async () => {
    const path = join(folder, 'shrinks.safetensors');
    await writeSafetensors(path, { a: { data: new Float32Array(4), shape: [4] } });
    await using file = await SafetensorsFile.open(path);
    await truncate(path, (file.tensors.get('a')?.offset ?? 0) + 12);
    await expectError(() => file.read('a'), 'SAFETENSORS_INVALID', /ended at byte/);
  });
});

describe('refusing broken files', () => {
  const f32 = (shape: number[], begin: number, end: number, dtype = 'F32') => ({
    dtype,
    shape,
    data_offsets: [begin, end],
  });
  const eight = new Uint8Array(8);

  test.each<[string, unknown, RegExp]>([
    ['a gap at the start', { a: f32([1], 4, 8) }, /gap before tensor "a"/],
    ['a gap inside', { a: f32([1], 0, 4), b: f32([0], 8, 8) }, /gap before tensor "b"/],
    ['an overlap', { a: f32([2], 0, 8), b: f32([1], 4, 8) }, /"b" overlaps/],
    ['two names for one place', { a: f32([2], 0, 8), b: f32([2], 0, 8) }, /overlaps/],
    ['data missing', { a: f32([3], 0, 12) }, /end at byte \d+, but the file has \d+/],
    ['data left over', { a: f32([1], 0, 4) }, /something appended/],
    ['shape and bytes that differ', { a: f32([3], 0, 8) }, /shape \[3\] needs 12 bytes/],
    ['a product past 2^53', { a: f32([2 ** 40, 2 ** 40], 0, 8) }, /needs/],
    ['offsets backwards', { a: f32([2], 8, 0) }, /needs 8 bytes, but its data_offsets are 8, 0/],
    ['a negative count', { a: f32([-2], 0, 8) }, /list of counts/],
    ['a fraction', { a: f32([0.5], 0, 8) }, /list of counts/],
    ['one offset', { a: { dtype: 'F32', shape: [2], data_offsets: [8] } }, /two counts/],
    ['an unknown type', { a: f32([2], 0, 8, 'Q4_K') }, /type "Q4_K"; BOOL, U8/],
    ['a type from Object', { a: f32([2], 0, 8, 'toString') }, /type "toString"/],
    ['a tensor that is a number', { a: 5 }, /not described by an object/],
    ['metadata that is a list', { __metadata__: [], a: f32([2], 0, 8) }, /__metadata__ is not an object/],
    ['metadata with a number', { __metadata__: { k: 1 }, a: f32([2], 0, 8) }, /key "k" is not a string/],
  ])('%s', async (_, header, message) => {
    const path = await fileOf(JSON.stringify(header), eight);
    await expectError(() => SafetensorsFile.open(path), 'SAFETENSORS_INVALID', message);
  });

  test.each<[string, string | Uint8Array, RegExp]>([
    ['no JSON', '{"a":', /header is not JSON/],
    ['a list', '[1]', /does not begin with \{/],
    ['nothing', '', /does not begin with \{/],
    ['bytes that are not UTF-8', new Uint8Array([0x7b, 0xff, 0x7d]), /header is not JSON/],
    ['a tensor twice', '{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a" : 1}', /key "a" twice/],
    ['a tensor twice in other letters', '{"a":{}, "\\u0061":{}}', /key "a" twice/],
    ['a metadata key twice', '{"__metadata__":{"x":"\\"","y":"x","x":""}}', /key "x" twice/],
  ])('a header with %s', async (_, header, message) => {
    await expectError(() => fileOf(header).then(SafetensorsFile.open), 'SAFETENSORS_INVALID', message);
  });

  test('a header longer than the file or than the format allows', async () => {
    const path = join(folder, 'long.safetensors');
    await writeFile(path, new Uint8Array([200, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x7d]));
    await expectError(() => SafetensorsFile.open(path), 'SAFETENSORS_INVALID', /should have 200 bytes.*ends after 10/);
    await writeFile(path, new Uint8Array(16).fill(255));
    await expectError(() => SafetensorsFile.open(path), 'SAFETENSORS_INVALID', /100 MB/);
    await writeFile(path, 'GGUF');
    await expectError(() => SafetensorsFile.open(path), 'SAFETENSORS_INVALID', /it is a GGUF file: a model/);
  });

  test('every cut of a good file', async () => {
    const whole = await readFile(PYTHON_FILE);
    const path = join(folder, 'cut.safetensors');
    for (let length = 0; length < whole.length; length += 13) {
      await writeFile(path, whole.subarray(0, length));
      await expectError(() => SafetensorsFile.open(path), 'SAFETENSORS_INVALID', /cut\.safetensors/);
    }
  });
});

describe('writing', () => {
  test('reads back, aligned, in the order of the reference implementation', async () => {
    const path = join(folder, 'written.safetensors');
    await writeSafetensors(
      path,
      {
        bytes: { data: new Uint8Array([1, 2, 3]), shape: [3] },
        b: { data: new Float32Array([1, 2, 3, 4, 5, 6]), shape: [2, 3] },
        a: { data: new Int32Array([-1]), shape: [] },
        wide: { data: new BigInt64Array([-5n]), shape: [1, 1] },
        double: { data: new Float64Array([Math.PI]), shape: [1] },
        none: { data: new Float32Array(0), shape: [0, 7] },
      },
      { key: 'käse "\n' },
    );
    await using file = await SafetensorsFile.open(path);
    expect([...file.tensors.keys()].filter((name) => name !== 'none')).toEqual(['double', 'wide', 'a', 'b', 'bytes']);
    for (const { offset, dtype } of file.tensors.values()) expect(offset % (dtype === 'U8' ? 1 : 4)).toBe(0);
    expect(file.metadata).toEqual({ key: 'käse "\n' });
    expect(await file.read('b')).toEqual(new Float32Array([1, 2, 3, 4, 5, 6]));
    expect(await file.read('a')).toEqual(new Int32Array([-1]));
    expect(await file.read('wide')).toEqual(new BigInt64Array([-5n]));
    expect(await file.read('double')).toEqual(new Float64Array([Math.PI]));
    expect(await file.read('bytes')).toEqual(new Uint8Array([1, 2, 3]));
    expect(await file.read('none')).toEqual(new Float32Array(0));
  });

  test('writes a view, not the buffer behind it', async () => {
    const path = join(folder, 'view.safetensors');
    await writeSafetensors(path, { a: { data: new Float32Array([1, 2, 3, 4]).subarray(1, 3), shape: [2] } });
    await using file = await SafetensorsFile.open(path);
    expect(await file.read('a')).toEqual(new Float32Array([2, 3]));
  });

  test('refuses shapes that do not fit, reserved names and impossible places', async () => {
    const data = new Float32Array(4);
    const path = join(folder, 'bad.safetensors');
    const write = (name: string, shape: number[]) => writeSafetensors(path, { [name]: { data, shape } });
    await expectError(() => write('a', [3]), 'INVALID_ARGUMENT', /4 elements, which do not make a shape of \[3\]/);
    await expectError(() => write('a', [-2, -2]), 'INVALID_ARGUMENT', /do not make/);
    await expectError(() => write('__metadata__', [4]), 'INVALID_ARGUMENT', /reserved/);
    const nowhere = join(folder, 'missing', 'a.safetensors');
    await expectError(() => writeSafetensors(nowhere, { a: { data, shape: [4] } }), 'FILE_WRITE', /create it/);
  });
});
