import { constants } from 'node:buffer';
import type { FileHandle } from 'node:fs/promises';
import { XpatchError } from './errors.js';
import { writeFileAtomic } from './files.js';
import { openRegular } from './read-file.js';
import {
  checkMetadata,
  checkTensors,
  invalidSafetensors,
  MAX_HEADER_BYTES,
  METADATA_KEY,
  parseHeader,
  type SafetensorsDtype,
  type TensorInfo,
} from './safetensors-header.js';
import { whatIs } from './what-is.js';

/** Its data are read piece by piece, whatever they are. */
const FILE = { what: 'the safetensors file', maxBytes: Number.MAX_SAFE_INTEGER, code: 'SAFETENSORS_INVALID' } as const;

export type { SafetensorsDtype, TensorInfo } from './safetensors-header.js';

/** What can be written; the type of the array is the type in the file (F32, F64, I32, I64, U8). */
export interface TensorToWrite {
  readonly data: Float32Array | Float64Array | Int32Array | BigInt64Array | Uint8Array;
  readonly shape: readonly number[];
}

/** Values of a tensor; F16 and BF16 are widened to 32 bits. */
export type TensorValues =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

/**
 * A safetensors file (https://huggingface.co/docs/safetensors) opened for reading. `open` reads and checks the header
 * only; each tensor is read when asked for, so a checkpoint of any size costs no more memory than its largest tensor in use.
 * Close it after use.
 *
 * @example
 * ```ts
 * await using file = await SafetensorsFile.open('peru.safetensors');
 * const numbers = await file.readFloat32('resid_post');     // in the order of file.tensors.get('resid_post').shape
 * ```
 */
export class SafetensorsFile {
  #handle: FileHandle | undefined;

  private constructor(
    readonly path: string,
    /** The free text pairs of the header; empty when there are none. */
    readonly metadata: Readonly<Record<string, string>>,
    /** By name, in the order of their data in the file. */
    readonly tensors: ReadonlyMap<string, TensorInfo>,
    handle: FileHandle,
  ) {
    this.#handle = handle;
  }

  /**
   * @throws {XpatchError} FILE_NOT_FOUND; SAFETENSORS_INVALID for a header that is cut off, no JSON, has duplicate keys or
   * unknown types, or describes other bytes than the file has (gaps, overlaps, ends before or after the file's end)
   */
  static async open(path: string): Promise<SafetensorsFile> {
    const handle = await openRegular(path, FILE);
    try {
      const stat = await handle.stat();
      const notOne = (why: string) => invalidSafetensors(path, whatIs(path, 'safetensors') ?? why);
      if (stat.size < 8) throw notOne(`it has ${stat.size} bytes, but the length of the header alone takes 8`);
      const headerBytes = Number((await readExactly(handle, path, 0, ownBuffer(8))).readBigUInt64LE());
      if (headerBytes > MAX_HEADER_BYTES) {
        throw notOne(`its first 8 bytes announce a header of ${headerBytes} bytes, over the format's limit of 100 MB`);
      }
      if (8 + headerBytes > stat.size) {
        throw notOne(`its header should have ${headerBytes} bytes, but the file ends after ${stat.size}`);
      }
      const header = parseHeader(path, await readExactly(handle, path, 8, ownBuffer(headerBytes)));
      const tensors = checkTensors(path, header, 8 + headerBytes, stat.size);
      return new SafetensorsFile(path, checkMetadata(path, header[METADATA_KEY]), tensors, handle);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /**
   * Reads one tensor as it is stored: F16 and BF16 are widened to Float32Array, BOOL comes as Uint8Array, 64-bit integers as
   * BigInt arrays.
   * @throws {XpatchError} SAFETENSORS_INVALID when there is no such tensor or the file has shrunk; DISPOSED after `close`
   */
  async read(name: string): Promise<TensorValues> {
    const info = this.#info(name);
    const handle = this.#opened(name);
    if (info.bytes > constants.MAX_LENGTH) {
      throw invalidSafetensors(
        this.path,
        `tensor ${JSON.stringify(name)} of ${info.bytes} bytes is larger than this Node can hold`,
      );
    }
    const raw = await readExactly(handle, this.path, info.offset, ownBuffer(info.bytes));
    const { buffer, byteOffset } = raw;
    switch (info.dtype) {
      case 'F32':
        return new Float32Array(buffer, byteOffset, info.length);
      case 'F64':
        return new Float64Array(buffer, byteOffset, info.length);
      case 'F16':
        return widenHalf(new Uint16Array(buffer, byteOffset, info.length));
      case 'BF16':
        return widenBrain(new Uint16Array(buffer, byteOffset, info.length));
      case 'I8':
        return new Int8Array(buffer, byteOffset, info.length);
      case 'I16':
        return new Int16Array(buffer, byteOffset, info.length);
      case 'U16':
        return new Uint16Array(buffer, byteOffset, info.length);
      case 'I32':
        return new Int32Array(buffer, byteOffset, info.length);
      case 'U32':
        return new Uint32Array(buffer, byteOffset, info.length);
      case 'I64':
        return new BigInt64Array(buffer, byteOffset, info.length);
      case 'U64':
        return new BigUint64Array(buffer, byteOffset, info.length);
      case 'U8':
      case 'BOOL':
        return new Uint8Array(buffer, byteOffset, info.length);
    }
  }

  /**
   * Fills `target` with the bytes of a tensor as they are in the file, from its `position`-th on, so that a tensor of any
   * size can be read in parts.
   * @throws {XpatchError} SAFETENSORS_INVALID as `read`, also where the tensor ends before; DISPOSED after `close`
   */
  async readBytes(name: string, position: number, target: Uint8Array): Promise<void> {
    const info = this.#info(name);
    if (position + target.length > info.bytes) {
      const end = position + target.length;
      throw invalidSafetensors(this.path, `tensor ${JSON.stringify(name)} has ${info.bytes} bytes, not ${end}`);
    }
    await readExactly(this.#opened(name), this.path, info.offset + position, target);
  }

  /**
   * Reads one tensor of any float type as Float32Array.
   * @throws {XpatchError} as `read`; SAFETENSORS_INVALID also for a tensor of integers
   */
  async readFloat32(name: string): Promise<Float32Array> {
    const { dtype } = this.#info(name);
    const data = await this.read(name);
    if (data instanceof Float32Array) return data;
    if (data instanceof Float64Array) return Float32Array.from(data);
    throw invalidSafetensors(this.path, `tensor ${JSON.stringify(name)} holds ${dtype}, where floats are needed`);
  }

  #opened(name: string): FileHandle {
    if (this.#handle !== undefined) return this.#handle;
    throw new XpatchError('DISPOSED', `${this.path} has been closed. Open it again to read ${JSON.stringify(name)}.`);
  }

  #info(name: string): TensorInfo {
    const info = this.tensors.get(name);
    if (info === undefined) {
      const names = [...this.tensors.keys()];
      const shown = names.slice(0, 8).map((n) => JSON.stringify(n));
      const list = names.length > shown.length ? `${shown.join(', ')}, … (${names.length})` : shown.join(', ');
      throw invalidSafetensors(this.path, `it has no tensor ${JSON.stringify(name)}, only ${list || 'none at all'}`);
    }
    return info;
  }

  /** Closes the file; what was read from it stays. */
  async close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close();
  }

  /** `close()`, at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Writes a safetensors file, all or nothing (see `writeFileAtomic`). Like the reference implementation, tensors are ordered
 * by falling element size and then by name, and the header is padded to 8 bytes, so that all data are aligned.
 *
 * @throws {XpatchError} FILE_WRITE; INVALID_ARGUMENT when a shape does not fit its data
 *
 * @example
 * ```ts
 * await writeSafetensors('x.safetensors', { x: { data: new Float32Array(6), shape: [2, 3] } }, { about: 'zeros' });
 * ```
 */
export async function writeSafetensors(
  path: string,
  tensors: Readonly<Record<string, TensorToWrite>>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const entries = Object.entries(tensors).sort(
    ([nameA, a], [nameB, b]) => b.data.BYTES_PER_ELEMENT - a.data.BYTES_PER_ELEMENT || (nameA < nameB ? -1 : 1),
  );
  const header: [string, unknown][] = [];
  if (Object.keys(metadata).length > 0) header.push([METADATA_KEY, metadata]);
  let end = 0;
  for (const [name, { data, shape }] of entries) {
    if (name === METADATA_KEY) {
      throw new XpatchError('INVALID_ARGUMENT', `${METADATA_KEY} is reserved: give the tensor another name.`);
    }
    if (!shape.every((n) => Number.isSafeInteger(n) && n >= 0) || shape.reduce((a, b) => a * b, 1) !== data.length) {
      const problem = `Tensor ${name} has ${data.length} elements, which do not make a shape of [${shape.join(', ')}].`;
      throw new XpatchError('INVALID_ARGUMENT', problem);
    }
    header.push([name, { dtype: dtypeOf(data), shape, data_offsets: [end, end + data.byteLength] }]);
    end += data.byteLength;
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(header)));
  const padding = Buffer.alloc((8 - (json.length % 8)) % 8, ' ');
  const headerLength = json.length + padding.length;
  if (headerLength > MAX_HEADER_BYTES) {
    const problem = `The header of ${path} would have ${headerLength} bytes; the format allows 100 MB. Shorten the metadata.`;
    throw new XpatchError('INVALID_ARGUMENT', problem);
  }
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(headerLength));
  const data = entries.map(([, { data }]) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  await writeFileAtomic(path, [length, json, padding, ...data]);
}

function dtypeOf(data: TensorToWrite['data']): SafetensorsDtype {
  if (data instanceof Float32Array) return 'F32';
  if (data instanceof Float64Array) return 'F64';
  if (data instanceof Int32Array) return 'I32';
  if (data instanceof BigInt64Array) return 'I64';
  return 'U8';
}

/** Its own ArrayBuffer, never a slice of Node's pool: typed arrays over it need aligned offsets. */
function ownBuffer(length: number): Buffer<ArrayBuffer> {
  return Buffer.from(new ArrayBuffer(length));
}

async function readExactly<T extends Uint8Array>(
  handle: FileHandle,
  path: string,
  position: number,
  buffer: T,
): Promise<T> {
  let done = 0;
  while (done < buffer.length) {
    // One read call takes at most 2^31 - 1 bytes.
    const want = Math.min(buffer.length - done, 0x40000000);
    const { bytesRead } = await handle.read(buffer, done, want, position + done);
    if (bytesRead === 0) throw invalidSafetensors(path, `it ended at byte ${position + done} while being read`);
    done += bytesRead;
  }
  return buffer;
}

/** bfloat16 is the upper half of a float32. */
function widenBrain(halves: Uint16Array): Float32Array {
  const bits = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) bits[i] = (halves[i] as number) << 16;
  return new Float32Array(bits.buffer);
}

/** IEEE 754 binary16: 1 sign, 5 exponent and 10 fraction bits. */
function widenHalf(halves: Uint16Array): Float32Array {
  const out = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) {
    const half = halves[i] as number;
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >> 10) & 0x1f;
    const fraction = half & 0x3ff;
    if (exponent === 0) out[i] = sign * fraction * 2 ** -24;
    else if (exponent === 0x1f) out[i] = fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
    else out[i] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return out;
}
