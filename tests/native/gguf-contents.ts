import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readGgufHeader, tensorBytes } from '../../src/gguf/gguf.js';

export interface Contents {
  /** Lists by length and digest, as tests/reference/conversion.py writes them. */
  keys: Record<string, unknown>;
  /** By name, a tensor's type as ggml's number, its shape and the digest of its data. */
  tensors: Record<string, [number, number[], string]>;
}

const NUMBERS: Record<number, [bytes: number, read: (view: DataView, at: number) => number]> = {
  0: [1, (view, at) => view.getUint8(at)],
  1: [1, (view, at) => view.getInt8(at)],
  2: [2, (view, at) => view.getUint16(at, true)],
  3: [2, (view, at) => view.getInt16(at, true)],
  4: [4, (view, at) => view.getUint32(at, true)],
  5: [4, (view, at) => view.getInt32(at, true)],
  6: [4, (view, at) => view.getFloat32(at, true)],
  7: [1, (view, at) => view.getUint8(at)],
  10: [8, (view, at) => Number(view.getBigUint64(at, true))],
  11: [8, (view, at) => Number(view.getBigInt64(at, true))],
  12: [8, (view, at) => view.getFloat64(at, true)],
};

/** All of a small GGUF file, whose header `readGgufHeader` accepts. */
export function ggufContents(path: string): Contents {
  const header = readGgufHeader(path);
  const file = readFileSync(path);
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  let at = 16;
  const advance = (bytes: number) => {
    at += bytes;
    return at - bytes;
  };
  const u32 = () => view.getUint32(advance(4), true);
  const u64 = () => Number(view.getBigUint64(advance(8), true));
  const text = () => {
    const length = u64();
    const from = advance(length);
    return file.toString('utf8', from, from + length);
  };
  const value = (type: number): string | number => {
    if (type === 8) return text();
    const [bytes, read] = NUMBERS[type] as (typeof NUMBERS)[number];
    return read(view, advance(bytes));
  };
  const keys: Record<string, unknown> = {};
  const nKeys = u64();
  for (let i = 0; i < nKeys; i++) {
    const key = text();
    const type = u32();
    if (type !== 9) {
      keys[key] = type === 7 ? value(type) === 1 : value(type);
      continue;
    }
    const itemType = u32();
    const items = Array.from({ length: u64() }, () => value(itemType));
    keys[key] = { length: items.length, digest: digestOf(items) };
  }
  for (const { name } of header.tensors) {
    if (text() !== name) throw new Error('the header was read differently');
    const nDims = u32();
    advance(8 * nDims + 4 + 8);
  }
  const start = Math.ceil(at / 32) * 32;
  const tensors: Contents['tensors'] = {};
  for (const { name, type, shape, offset } of header.tensors) {
    const bytes = tensorBytes(type, shape) as number;
    tensors[name] = [type, shape, sha(file.subarray(start + offset, start + offset + bytes))];
  }
  return { keys, tensors };
}

function digestOf(items: (string | number)[]): string {
  if (typeof items[0] === 'string')
    return sha(Buffer.from(`[${items.map((item) => JSON.stringify(item)).join(', ')}]`));
  return sha(Buffer.from(Float32Array.from(items as number[]).buffer));
}

function sha(data: Uint8Array): string {
  return createHash('sha256').update(data).digest('hex').slice(0, 16);
}

/** The numbers of an F32 tensor. */
export function readTensor(path: string, name: string): Float32Array {
  const header = readGgufHeader(path);
  const tensor = header.tensors.find((one) => one.name === name);
  if (tensor?.type !== 0) throw new Error(`${path} has no F32 tensor ${name}`);
  const from = header.dataOffset + tensor.offset;
  const bytes = readFileSync(path).subarray(from, from + 4 * tensor.shape.reduce((a, b) => a * b, 1));
  return new Float32Array(Uint8Array.from(bytes).buffer);
}
