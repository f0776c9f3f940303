import { XpatchError } from '../util/errors.js';
import { GGUF_TYPE, tensorBytes } from './gguf.js';

// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

/** GGUF's ids of the types of metadata values that are written here. */
const TYPE_IDS = {
  u32: GGUF_TYPE.uint32,
  i32: GGUF_TYPE.int32,
  f32: GGUF_TYPE.float32,
  bool: GGUF_TYPE.bool,
  string: GGUF_TYPE.string,
};
const NUMBER_BYTES = { u32: 4, i32: 4, f32: 4, bool: 1, u64: 8 };

type GgufType = keyof typeof TYPE_IDS;
type Plain<T extends GgufType> = T extends 'string' ? string : T extends 'bool' ? boolean : number;
/** A metadata value with its type; `list` marks an array, whose items are all of one type. */
export type GgufField = {
  [T in GgufType]:
    | { readonly type: T; readonly value: Plain<T> }
    | { readonly type: T; readonly list: ArrayLike<Plain<T>> };
}[GgufType];

export const u32 = (value: number): GgufField => ({ type: 'u32', value });
export const f32 = (value: number): GgufField => ({ type: 'f32', value });
export const bool = (value: boolean): GgufField => ({ type: 'bool', value });
export const text = (value: string): GgufField => ({ type: 'string', value });

/** A tensor as the header describes it. */
export interface GgufTensorLayout {
  readonly name: string;
  /** The fastest axis first, as ggml counts. */
  readonly shape: readonly number[];
  /** ggml's number of the type. */
  readonly type: number;
}

/** Where everything in a GGUF file is. */
export interface GgufLayout {
  /** The file up to the data of the first tensor. */
  readonly header: Buffer;
  /** For each tensor, in the order given: offset of its first byte in the file, and number of bytes. */
  readonly places: readonly { offset: number; bytes: number }[];
  /** Bytes of the whole file; what is between tensors and after the last one is zero. */
  readonly size: number;
}

/** What GGUF aligns tensors to where the file does not say otherwise. */
const ALIGNMENT = 32;

/**
 * Plans a GGUF file, version 3: the bytes of its header, and where the data of each tensor go.
 * @throws {XpatchError} INVALID_ARGUMENT for values that their type cannot hold, tensors of one name and shapes that their type
 * cannot have
 */
export function layOutGguf(
  metadata: Readonly<Record<string, GgufField>>,
  tensors: readonly GgufTensorLayout[],
): GgufLayout {
  const out = new ByteSink();
  out.bytes(Buffer.from('GGUF'));
  out.number('u32', 3);
  out.number('u64', tensors.length);
  out.number('u64', Object.keys(metadata).length);
  for (const [key, field] of Object.entries(metadata)) {
    out.string(key);
    try {
      writeField(out, field);
    } catch (cause) {
      throw new XpatchError('INVALID_ARGUMENT', `${key} cannot be written: ${(cause as Error).message}.`, { cause });
    }
  }
  const places: { offset: number; bytes: number }[] = [];
  const names = new Set<string>();
  let end = 0;
  for (const { name, shape, type } of tensors) {
    const bytes = shape.length >= 1 && shape.length <= 4 ? tensorBytes(type, shape) : undefined;
    if (bytes === undefined || names.has(name)) {
      const problem =
        bytes === undefined ? `cannot have the shape ${shape.join(' x ')} and type ${type}` : 'appears twice';
      throw new XpatchError('INVALID_ARGUMENT', `Tensor ${name} ${problem}.`);
    }
    names.add(name);
    out.string(name);
    out.number('u32', shape.length);
    for (const side of shape) out.number('u64', side);
    out.number('u32', type);
    out.number('u64', end);
    places.push({ offset: end, bytes });
    end += align(bytes);
  }
  const header = out.padded();
  for (const place of places) place.offset += header.length;
  return { header, places, size: header.length + end };
}

function align(n: number): number {
  return Math.ceil(n / ALIGNMENT) * ALIGNMENT;
}

function writeField(out: ByteSink, field: GgufField): void {
  if (!('list' in field)) {
    out.number('u32', TYPE_IDS[field.type]);
    out.value(field.type, field.value);
    return;
  }
  out.number('u32', GGUF_TYPE.array);
  out.number('u32', TYPE_IDS[field.type]);
  out.number('u64', field.list.length);
  for (let i = 0; i < field.list.length; i++) out.value(field.type, field.list[i] as string | number | boolean);
}

/** Little-endian bytes one after another, in a buffer that doubles: a vocabulary has a million of them. */
class ByteSink {
  #buffer = Buffer.alloc(1 << 16);
  #length = 0;

  value(type: GgufType, value: string | number | boolean): void {
    if (type === 'string') this.string(value as string);
    else this.number(type, Number(value));
  }

  string(value: string): void {
    const length = Buffer.byteLength(value);
    this.number('u64', length);
    const at = this.#grow(length);
    this.#buffer.write(value, at);
  }

  bytes(value: Uint8Array): void {
    const at = this.#grow(value.length);
    this.#buffer.set(value, at);
  }

  /** @throws {RangeError} where the type cannot hold the value; of f32, where it is not finite */
  number(type: keyof typeof NUMBER_BYTES, value: number): void {
    const at = this.#grow(NUMBER_BYTES[type]);
    const buffer = this.#buffer;
    if (type === 'bool') buffer.writeUInt8(value, at);
    else if (type === 'u32') buffer.writeUInt32LE(value, at);
    else if (type === 'i32') buffer.writeInt32LE(value, at);
    else if (type === 'u64') buffer.writeBigUInt64LE(BigInt(value), at);
    else if (Number.isFinite(Math.fround(value))) buffer.writeFloatLE(value, at);
    else throw new RangeError(`${value} is not a finite number of 32 bits`);
  }

  padded(): Buffer {
    this.#grow(align(this.#length) - this.#length);
    return this.#buffer.subarray(0, this.#length);
  }

  /** Makes room for `n` bytes more and gives their place. May replace the buffer. */
  #grow(n: number): number {
    const at = this.#length;
    this.#length += n;
    if (this.#length > this.#buffer.length) {
      const larger = Buffer.alloc(Math.max(this.#length, 2 * this.#buffer.length));
      larger.set(this.#buffer.subarray(0, at));
      this.#buffer = larger;
    }
    return at;
  }
}
