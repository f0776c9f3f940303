// ggml's quantiser through the addon, against rows that gguf's Python package has taken back to floats
// (tests/reference/quantised.py).
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { tensorBytes } from '../../src/gguf/gguf.js';
import { GGML } from '../../src/gguf/tensor-types.js';
import { native } from '../../src/native/index.js';
import { SafetensorsFile } from '../../src/util/safetensors.js';

const REFERENCE = fileURLToPath(new URL('../fixtures/checkpoints/quantised.safetensors', import.meta.url));
const ROW = 256;
let source: Float32Array;
let file: SafetensorsFile;

beforeAll(async () => {
  file = await SafetensorsFile.open(REFERENCE);
  source = await file.readFloat32('source');
});

const bytesOf = (array: Float32Array | Uint16Array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

async function quantise(from: Uint8Array, sourceType: number, type: number, row = ROW): Promise<Uint8Array> {
  const values = from.length / (tensorBytes(sourceType, [1]) as number);
  const result = new Uint8Array(tensorBytes(type, [values]) as number);
  await native().addon.quantise(from, sourceType, result, type, row);
  return result;
}

describe('quantised rows', () => {
  test.each(['Q8_0', 'Q5_0', 'Q4_K', 'Q6_K'] as const)('%s: the blocks that Python reads', async (name) => {
    const blocks = await quantise(bytesOf(source), GGML.F32, GGML[name]);
    expect(Buffer.from(blocks).equals(Buffer.from((await file.read(`${name}.blocks`)) as Uint8Array))).toBe(true);
    // Python's floats are near the source: its reading of the blocks and ours are of the same layout.
    const floats = await file.readFloat32(`${name}.floats`);
    let [error, power] = [0, 0];
    for (const [i, value] of source.entries()) {
      error += (value - (floats[i] as number)) ** 2;
      power += value ** 2;
    }
    expect(Math.sqrt(error / power)).toBeLessThan({ Q8_0: 0.007, Q5_0: 0.06, Q4_K: 0.09, Q6_K: 0.03 }[name]);
  });

  test('F16 is rounded to nearest, ties to even; BF16 and F16 are widened exactly', async () => {
    const values = Float32Array.of(1, 1 + 2 ** -11, 1 + 3 * 2 ** -11, -65504, 65519, 2 ** -24, 2 ** -25);
    const halves = new Uint16Array((await quantise(bytesOf(values), GGML.F32, GGML.F16, 7)).buffer);
    expect([...halves]).toEqual([0x3c00, 0x3c00, 0x3c02, 0xfbff, 0x7bff, 1, 0]);
    const brain = Uint16Array.of(0x3f80, 0xbfc0, 0x0080, 0x7f7f);
    const widened = new Float32Array((await quantise(bytesOf(brain), GGML.BF16, GGML.F32, 4)).buffer);
    expect([...widened]).toEqual([1, -1.5, 2 ** -126, (2 - 2 ** -7) * 2 ** 127]);
    const same = new Float32Array((await quantise(bytesOf(halves), GGML.F16, GGML.F32, 7)).buffer);
    expect([...same].slice(0, 3)).toEqual([1, 1, 1 + 2 ** -9]);
  });
});

describe('what ggml would abort on is refused', () => {
  const rows = new Uint8Array(4 * ROW);

  test('values that are not finite, or too large for F16', async () => {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const spoiled = Float32Array.from({ length: ROW }, (_, i) => (i === 200 ? value : 1));
      for (const type of [GGML.Q4_K, GGML.F16, GGML.F32]) {
        await expect(quantise(bytesOf(spoiled), GGML.F32, type)).rejects.toMatchObject({ code: 'NOT_FINITE' });
      }
    }
    const large = Float32Array.of(65520);
    await expect(quantise(bytesOf(large), GGML.F32, GGML.F16, 1)).rejects.toMatchObject({ code: 'NOT_FINITE' });
    expect(await quantise(bytesOf(large), GGML.F32, GGML.F32, 1)).toHaveLength(4);
  });

  test.each(['Q8_0', 'Q5_0', 'Q4_K', 'Q6_K'] as const)(
    '%s: values that are too large for the scale of a block',
    async (name) => {
      const rowsWith = (value: number) =>
        bytesOf(Float32Array.from({ length: ROW }, (_, i) => (i === 200 ? value : 1)));
      const refused = quantise(rowsWith(1e9), GGML.F32, GGML[name]);
      await expect(refused).rejects.toMatchObject({
        code: 'NOT_FINITE',
        message: expect.stringMatching(/too large for q\d_/i),
      });
      expect(await quantise(rowsWith(5e5), GGML.F32, GGML[name])).toHaveLength(
        tensorBytes(GGML[name], [ROW]) as number,
      );
    },
  );

  test('rows and sizes that do not fit, unknown types', async () => {
    const { quantise: raw } = native().addon;
    const refused = (work: Promise<void>) => expect(work).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await refused(raw(rows, GGML.F32, new Uint8Array(144), GGML.Q4_K, 128));
    await refused(raw(rows, GGML.F32, new Uint8Array(143), GGML.Q4_K, ROW));
    await refused(raw(rows.subarray(1), GGML.F32, new Uint8Array(144), GGML.Q4_K, ROW));
    await refused(raw(rows, GGML.Q8_0, new Uint8Array(144), GGML.Q4_K, ROW));
    await refused(raw(rows, GGML.F32, new Uint8Array(144), 16, ROW));
    await refused(raw(rows, GGML.F32, new Uint8Array(144), 999, ROW));
    await refused(raw(rows, GGML.F32, new Uint8Array(144), GGML.Q4_K, 0));
    expect(() => raw(new Float32Array(1) as unknown as Uint8Array, 0, rows, 0, 1)).toThrow();
  });
});
