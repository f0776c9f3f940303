// GGUF files that say what they should not: each is a good file with one seeded lie.

import { tensorBytes } from '../../src/gguf/gguf.js';
import { Random } from '../../src/util/random.js';
import {
  ARCHITECTURES,
  MMPROJ_KEYS,
  MMPROJ_TENSORS,
  MODEL_KEYS,
  MODEL_TENSORS,
  PROJECTORS,
  TELLING,
  TELLING_FLOATS,
  TOKENIZER_KEYS,
  TYPES,
} from './hostile-names.js';

interface Pair {
  key: string;
  type: number;
  raw: Buffer;
}
interface Tensor {
  name: string;
  shape: number[];
  type: number;
  data: Buffer;
}
interface Document {
  pairs: Pair[];
  tensors: Tensor[];
}

const [U32, F32, BOOL, STRING, ARRAY] = [4, 6, 7, 8, 9];
const VALUE_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
const ALIGNMENT = 32;

export function parse(file: Buffer): Document {
  let at = 8;
  const take = (n: number) => {
    at += n;
    return file.subarray(at - n, at);
  };
  const u32 = () => take(4).readUInt32LE();
  const u64 = () => Number(take(8).readBigUInt64LE());
  const skip = (type: number) => take(type === STRING ? u64() : (VALUE_BYTES[type] as number));
  const [nTensors, nPairs] = [u64(), u64()];
  const pairs = Array.from({ length: nPairs }, (): Pair => {
    const key = take(u64()).toString();
    const type = u32();
    const from = at;
    if (type === ARRAY) {
      const item = u32();
      for (let n = u64(); n > 0; n--) skip(item);
    } else skip(type);
    return { key, type, raw: file.subarray(from, at) };
  });
  const infos = Array.from({ length: nTensors }, () => {
    const name = take(u64()).toString();
    const shape = Array.from({ length: u32() }, u64);
    return { name, shape, type: u32(), offset: u64() };
  });
  const start = Math.ceil(at / ALIGNMENT) * ALIGNMENT;
  const tensors = infos.map(({ name, shape, type, offset }) => {
    const bytes = tensorBytes(type, shape) as number;
    return { name, shape, type, data: file.subarray(start + offset, start + offset + bytes) };
  });
  return { pairs, tensors };
}

const u32 = (n: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(n >>> 0);
  return bytes;
};
const u64 = (n: number) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(n));
  return bytes;
};
const text = (value: string | Buffer) => {
  const bytes = typeof value === 'string' ? Buffer.from(value) : value;
  return Buffer.concat([u64(bytes.length), bytes]);
};
const f32 = (n: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(n);
  return bytes;
};
const list = (type: number, items: Buffer[]) => Buffer.concat([u32(type), u64(items.length), ...items]);

export function serialise({ pairs, tensors }: Document): Buffer {
  const head: Buffer[] = [Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(pairs.length)];
  for (const { key, type, raw } of pairs) head.push(text(key), u32(type), raw);
  let offset = 0;
  const data: Buffer[] = [];
  for (const { name, shape, type, data: bytes } of tensors) {
    head.push(text(name), u32(shape.length), ...shape.map(u64), u32(type), u64(offset));
    const padding = -bytes.length & (ALIGNMENT - 1);
    data.push(bytes, Buffer.alloc(padding));
    offset += bytes.length + padding;
  }
  const length = head.reduce((n, bytes) => n + bytes.length, 0);
  return Buffer.concat([...head, Buffer.alloc(-length & (ALIGNMENT - 1)), ...data]);
}

/**
 * A copy of a good GGUF with one lie, and what the lie is.
 *
 * @param label the name of the good file: another file, other lies
 */
export function lie(file: Buffer, seed: number, label: string): { file: Buffer; lie: string } {
  const random = new Random(seed, `hostile ${label}`);
  const whole = (n: number) => Math.floor(random.uniform() * n);
  const pick = <T>(from: readonly T[]): T => from[whole(from.length)] as T;
  const document = parse(file);
  const { pairs, tensors } = document;
  const isMmproj = pairs.some(({ key }) => key.startsWith('clip.'));
  const architecture =
    pairs
      .find(({ key }) => key === 'general.architecture')
      ?.raw.subarray(8)
      .toString() ?? '';
  const bytesFor = (type: number, shape: number[]) => tensorBytes(type, shape) ?? 64;
  const filled = (name: string, shape: number[], type: number): Tensor => {
    const data = Buffer.alloc(Math.min(bytesFor(type, shape), 1 << 24));
    for (let i = 0; i + 4 <= data.length; i += 4) {
      if (type === 0) data.writeFloatLE(random.gaussian() * 0.1, i);
      else data.writeUInt32LE(type === 1 || type === 30 ? 0x2e002c00 : whole(1 << 12), i);
    }
    return { name, shape, type, data };
  };
  const near = (n: number) => pick([...TELLING, n - 1, n + 1, n * 2, Math.floor(n / 2), n * 3, n + 32]);
  const set = (key: string, type: number, raw: Buffer) => {
    const found = pairs.find((pair) => pair.key === key);
    if (found) Object.assign(found, { type, raw });
    else pairs.push({ key, type, raw });
  };
  const show = (raw: Buffer) => (raw.length > 24 ? `${raw.length} bytes` : raw.toString('hex'));
  const value = (type: number, old: number): Buffer => {
    if (type === F32) return f32(pick([...TELLING_FLOATS, old * 2, -old]));
    if (type === BOOL) return Buffer.of(whole(3));
    const bytes = VALUE_BYTES[type] as number;
    const raw = Buffer.alloc(bytes);
    const n = BigInt.asUintN(bytes * 8, BigInt(Math.max(0, near(old))));
    for (let i = 0; i < bytes; i++) raw[i] = Number((n >> BigInt(8 * i)) & 0xffn);
    return raw;
  };
  const numberOf = ({ type, raw }: Pair): number =>
    type === F32 ? raw.readFloatLE() : raw.length >= 4 ? raw.readUInt32LE() : raw.readUInt8();

  const KINDS: [weight: number, () => string][] = [
    [
      5, // a number of the file
      () => {
        const pair = pick(pairs.filter(({ type, key }) => type !== ARRAY && type !== STRING && !/^general/.test(key)));
        pair.raw = value(pair.type, numberOf(pair));
        return `${pair.key} = ${show(pair.raw)}`;
      },
    ],
    [
      5, // a key that the file does not have, or has otherwise
      () => {
        const own = isMmproj ? MMPROJ_KEYS : MODEL_KEYS.map((key) => `${architecture}.${key}`);
        const key = pick([...own, ...own, ...(isMmproj ? [] : TOKENIZER_KEYS)]);
        const type = pick([U32, U32, U32, U32, F32, BOOL, ARRAY, STRING]);
        const numbers = () => Array.from({ length: pick([0, 1, 2, 3, 4, 8, 600]) }, () => u32(near(8)));
        const texts = [
          '',
          'none',
          'linear',
          'yarn',
          'longrope',
          'spm',
          'bert',
          'no_vocab',
          'gpt2',
          'rwkv',
          'x'.repeat(100_000),
        ];
        const raw =
          type === ARRAY ? list(pick([U32, 5]), numbers()) : type === STRING ? text(pick(texts)) : value(type, 8);
        set(key, type, raw);
        return `${key} (type ${type}) = ${show(raw)}`;
      },
    ],
    [
      1,
      () => {
        const gone = whole(pairs.length);
        return `without ${pairs.splice(gone, 1)[0]?.key}`;
      },
    ],
    [
      2, // another type with the same number
      () => {
        const pair = pick(pairs.filter(({ type }) => type !== ARRAY && type !== STRING));
        const n = numberOf(pair);
        const type = pick([0, 1, 2, 3, 4, 5, F32, BOOL, 10, 11, 12, STRING].filter((other) => other !== pair.type));
        const raw = Buffer.alloc(VALUE_BYTES[type] || 8);
        if (type === STRING) pair.raw = text(String(n));
        else {
          if (type === F32) raw.writeFloatLE(n);
          else if (type === 12) raw.writeDoubleLE(n);
          else if (raw.length >= 4) raw.writeUInt32LE(Math.abs(Math.trunc(n)) >>> 0);
          else raw[0] = n & 0xff;
          pair.raw = raw;
        }
        pair.type = type;
        return `${pair.key} has type ${type}`;
      },
    ],
    [
      3, // a list of numbers or texts
      () => {
        const pair = pick(pairs.filter(({ type }) => type === ARRAY));
        if (!pair) return 'nothing';
        const item = pair.raw.readUInt32LE();
        const length = Number(pair.raw.readBigUInt64LE(4));
        const items: Buffer[] = [];
        for (let at = 12, i = 0; i < length; i++) {
          const bytes = item === STRING ? 8 + Number(pair.raw.readBigUInt64LE(at)) : (VALUE_BYTES[item] as number);
          items.push(pair.raw.subarray(at, at + bytes));
          at += bytes;
        }
        const odd = [
          '',
          '\0',
          'a\0b',
          ' ',
          'a b',
          'ab',
          'x y z',
          '<0xZZ>',
          '<0x100>',
          '\u2581',
          '\ud83d',
          '<s>',
          'é'.repeat(300),
          'y'.repeat(70_000),
        ];
        const one = () =>
          item === STRING ? text(pick([Buffer.of(0xff, 0xfe), ...odd.map((t) => Buffer.from(t))])) : value(item, 3);
        const how = pick(['changed', 'changed', 'cut', 'longer', 'empty', 'all alike']);
        if (how === 'changed') items[whole(items.length)] = one();
        if (how === 'cut') items.length = whole(items.length);
        if (how === 'longer') for (let n = pick([1, 2, 1000]); n > 0; n--) items.push(one());
        if (how === 'empty') items.length = 0;
        if (how === 'all alike') items.fill(items[0] as Buffer);
        pair.raw = list(item, items);
        return `${pair.key} ${how}`;
      },
    ],
    [
      3, // another architecture, with its keys
      () => {
        const other = pick(isMmproj ? PROJECTORS : ARCHITECTURES);
        if (isMmproj) {
          set('clip.projector_type', STRING, text(other));
          return `projector ${other}`;
        }
        for (const pair of pairs) {
          if (pair.key.startsWith(`${architecture}.`)) pair.key = `${other}${pair.key.slice(architecture.length)}`;
        }
        set('general.architecture', STRING, text(other));
        return `architecture ${other}`;
      },
    ],
    [
      5, // shape
      () => {
        const i = whole(tensors.length);
        const { name, shape, type } = tensors[i] as Tensor;
        const axis = whole(shape.length);
        const other = [...shape];
        const how = pick(['scaled', 'scaled', 'one more', 'swapped', 'flat', 'split']);
        if (how === 'scaled')
          other[axis] = Math.max(
            1,
            pick([
              1,
              2,
              (shape[axis] as number) / 2,
              (shape[axis] as number) * 2,
              (shape[axis] as number) + 32,
              32,
              64,
            ]),
          );
        if (how === 'one more') other.push(pick([1, 1, 2]));
        if (how === 'swapped') other.reverse();
        if (how === 'flat')
          other.splice(
            0,
            other.length,
            shape.reduce((a, b) => a * b, 1),
          );
        if (how === 'split') other.splice(0, 1, (shape[0] as number) / 2, 2);
        tensors[i] = filled(name, other.slice(0, 4).map(Math.floor), type);
        return `${name} is ${other.join(' x ')}`;
      },
    ],
    [
      4, // type, with a second axis of 1 for some vectors
      () => {
        const i = whole(tensors.length);
        const { name, shape } = tensors[i] as Tensor;
        const type = pick(TYPES);
        const other = shape.length === 1 && whole(2) ? [...shape, 1] : shape;
        tensors[i] = filled(name, other, type);
        return `${name} ${other.join(' x ')} has type ${type}`;
      },
    ],
    [
      2,
      () => {
        const [gone] = tensors.splice(whole(tensors.length), 1);
        return `without ${gone?.name}`;
      },
    ],
    [
      1,
      () => {
        const tensor = pick(tensors);
        const before = tensor.name;
        tensor.name = pick([
          `${before}x`,
          before.replace(/\d+/, '7'),
          'y'.repeat(70),
          '',
          before.replace('weight', 'bias'),
        ]);
        return `${before} is called ${tensor.name}`;
      },
    ],
    [
      4, // a tensor that the file does not have
      () => {
        const name = pick(isMmproj ? MMPROJ_TENSORS : MODEL_TENSORS);
        const shapes = tensors.map(({ shape }) => shape);
        const shape = pick([...shapes, [1], [64], [64, 1], [32], [128], [64, 64], [2, 2]]);
        const found = tensors.findIndex((tensor) => tensor.name === name);
        const tensor = filled(name, shape, pick([0, 0, 0, 1, 8, 26]));
        if (found >= 0) tensors[found] = tensor;
        else tensors.push(tensor);
        return `${name} ${shape.join(' x ')} of type ${tensor.type}`;
      },
    ],
    [
      1, // values
      () => {
        const tensor = pick(tensors);
        tensor.data = Buffer.from(tensor.data);
        const what = pick([0xff, 0x7f, 0x00]);
        tensor.data.fill(what, 0, pick([4, tensor.data.length]));
        return `${tensor.name} filled with ${what}`;
      },
    ],
  ];
  const what = pick(KINDS.flatMap(([weight, change]) => Array.from({ length: weight }, () => change)))();
  const made = serialise(document);
  if (whole(50) > 0) return { file: made, lie: what };
  const length = whole(made.length);
  return { file: made.subarray(0, length), lie: `${what}, cut at ${length}` };
}
