import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { XpatchError } from '../util/errors.js';
import { requireNotOutput } from '../util/read-file.js';
import { systemReason } from '../util/system-reason.js';
import { whatIs } from '../util/what-is.js';

/**
 * A check of a GGUF file before llama.cpp sees it. llama.cpp refuses many broken files by itself, but asserts (and ends
 * the process) or computes nonsense on others: sizes that do not fit together, tensors outside the file.
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
export interface GgufHeader {
  version: number;
  metadata: Map<string, GgufValue>;
  /** GGUF's id of each value's type; for an array that of its items. */
  types: Map<string, number>;
  tensors: GgufTensor[];
  /** Where in the file the tensors' offsets count from. */
  dataOffset: number;
}

/** Arrays are kept only up to this many elements; longer ones (vocabularies) are checked and counted. */
const KEPT_ARRAY = 64;

/** Those of numbers under our own keys are kept to this many: 512 layers of heads of 2048. */
const KEPT_OWN_ARRAY = 1 << 20;

/**
 * Bytes of a text, and of a name or a member of a list: far above any real one. A damaged length may announce gigabytes, which no
 * JavaScript string holds.
 */
const MAX_TEXT = 256 << 20;
const MAX_NAME = 1 << 20;

/** The list whose texts must differ: llama.cpp ends the process otherwise. */
const VOCABULARY = 'tokenizer.ggml.tokens';

export type GgufValue = number | bigint | boolean | string | GgufArray;
export interface GgufArray {
  length: number;
  /** The first elements, at most KEPT_ARRAY; all of our own. */
  values: (number | bigint | boolean | string)[];
  /** Whether a non-empty text, up to its first NUL, occurs in it more than once; looked up in the vocabulary only. */
  repeats: boolean;
}
export interface GgufTensor {
  name: string;
  shape: number[];
  type: number;
  offset: number;
}

/**
 * ggml type id -> [elements a block, bytes a block]. Kept here, as headers are read without the addon too; a test holds it to what
 * the addon's ggml has.
 * @internal
 */
export const TENSOR_TYPES: Readonly<Record<number, readonly [number, number]>> = {
  0: [1, 4], // F32
  1: [1, 2], // F16
  2: [32, 18], // Q4_0
  3: [32, 20], // Q4_1
  6: [32, 22], // Q5_0
  7: [32, 24], // Q5_1
  8: [32, 34], // Q8_0
  9: [32, 36], // Q8_1
  10: [256, 84], // Q2_K
  11: [256, 110], // Q3_K
  12: [256, 144], // Q4_K
  13: [256, 176], // Q5_K
  14: [256, 210], // Q6_K
  15: [256, 292], // Q8_K
  16: [256, 66], // IQ2_XXS
  17: [256, 74], // IQ2_XS
  18: [256, 98], // IQ3_XXS
  19: [256, 50], // IQ1_S
  20: [32, 18], // IQ4_NL
  21: [256, 110], // IQ3_S
  22: [256, 82], // IQ2_S
  23: [256, 136], // IQ4_XS
  24: [1, 1], // I8
  25: [1, 2], // I16
  26: [1, 4], // I32
  27: [1, 8], // I64
  28: [1, 8], // F64
  29: [256, 56], // IQ1_M
  30: [1, 2], // BF16
  34: [256, 54], // TQ1_0
  35: [256, 66], // TQ2_0
  39: [32, 17], // MXFP4
  40: [64, 36], // NVFP4
  41: [128, 18], // Q1_0
  42: [64, 18], // Q2_0
};

/** Bytes of a tensor, or undefined where its type is unknown or cannot have such rows. `shape`: the fastest axis first. */
export function tensorBytes(type: number, shape: readonly number[]): number | undefined {
  const layout = TENSOR_TYPES[type];
  if (!layout || shape.some((n) => n < 1) || (shape[0] as number) % layout[0] !== 0) return undefined;
  return (shape.reduce((a, b) => a * b, 1) / layout[0]) * layout[1];
}

/** Type ids of metadata values. */
export const GGUF_TYPE = { uint32: 4, int32: 5, float32: 6, bool: 7, string: 8, array: 9 } as const;

/** Bytes of a fixed-size metadata value, by type id. */
const VALUE_BYTES: Record<number, number> = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };

/**
 * Reads and checks the header of a GGUF file: magic, version, metadata, and that every tensor is inside the file.
 * Synchronous, because a promise for each of a vocabulary's texts would take seconds.
 *
 * @param wanted what it should hold, for the way out. Defaults to anything, such as a model
 * @throws XpatchError FILE_NOT_FOUND, GGUF_INVALID.
 */
export function readGgufHeader(path: string, wanted: 'GGUF' | 'control vector' = 'GGUF'): GgufHeader {
  let file: number;
  let key: string;
  try {
    requireNotOutput(path);
    const info = statSync(path, { bigint: true });
    key = [info.dev, info.ino, info.size, info.mtimeNs, info.ctimeNs].join();
    const before = known.get(key);
    if (before) return before;
    // Before it is opened: opening a named pipe waits for its writer.
    if (!info.isFile())
      throw new XpatchError('GGUF_INVALID', `'${path}' is not a usable GGUF file: ${whatIs(path, wanted)}.`);
    file = openSync(path, 'r');
  } catch (error) {
    if (error instanceof XpatchError) throw error;
    throw new XpatchError('FILE_NOT_FOUND', `'${path}' cannot be opened: ${systemReason(error)}.`, {
      cause: error,
    });
  }
  try {
    const info = fstatSync(file);
    const header = new HeaderReader(file, info.size, path, wanted).read();
    if (Date.now() - info.mtimeMs > SETTLED_MS) remember(key, header);
    return header;
  } finally {
    closeSync(file);
  }
}

/** Headers read last: loading a model asks for the same one a dozen times, and a vocabulary takes a while. */
const known = new Map<string, GgufHeader>();
const MOST_KNOWN = 8;
/** A file written since may be written again within the same tick of the file system's clock, which its times would not show. */
const SETTLED_MS = 2000;

function remember(key: string, header: GgufHeader): void {
  known.set(key, header);
  const [oldest] = known.keys();
  if (known.size > MOST_KNOWN && oldest !== undefined) known.delete(oldest);
}

/** A number from the metadata, or undefined where the key is missing or of another type. */
export function ggufNumber(header: GgufHeader, key: string): number | undefined {
  const value = header.metadata.get(key);
  return typeof value === 'number' || typeof value === 'bigint' ? Number(value) : undefined;
}

class HeaderReader {
  private buffer = Buffer.alloc(0);
  private start = 0; // file offset of buffer[0]
  private at = 0; // file offset of the next byte

  constructor(
    private readonly file: number,
    private readonly size: number,
    private readonly path: string,
    private readonly wanted: 'GGUF' | 'control vector',
  ) {}

  read(): GgufHeader {
    if (this.size < 4) throw this.invalid(whatIs(this.path, this.wanted) ?? 'it ends inside magic');
    const magic = this.bytes(4, 'magic').toString('latin1');
    if (magic !== 'GGUF') {
      throw this.invalid(whatIs(this.path, this.wanted) ?? 'it does not start with "GGUF"');
    }
    const version = this.u32('version');
    if (version < 2 || version > 3)
      throw this.invalid(whatIs(this.path, this.wanted) ?? `GGUF version ${version} is not supported (2 and 3 are)`);
    const nTensors = this.count('number of tensors');
    const nPairs = this.count('number of metadata pairs');

    const metadata = new Map<string, GgufValue>();
    const types = new Map<string, number>();
    for (let i = 0; i < nPairs; i++) {
      const key = this.name('metadata key');
      if (metadata.has(key)) throw this.invalid(`metadata key '${key}' occurs twice`);
      const type = this.u32(`type of ${key}`);
      types.set(key, type);
      metadata.set(key, this.value(type, key, types));
    }
    const tensors: GgufTensor[] = [];
    for (let i = 0; i < nTensors; i++) tensors.push(this.tensor());
    const dataOffset = this.checkTensors(tensors, metadata);
    return { version, metadata, types, tensors, dataOffset };
  }

  private tensor(): GgufTensor {
    const name = this.name('tensor name');
    const nDims = this.u32(`dimensions of ${name}`);
    if (nDims < 1 || nDims > 4) throw this.invalid(`tensor '${name}' has ${nDims} dimensions`);
    const shape: number[] = [];
    for (let d = 0; d < nDims; d++) shape.push(this.count(`shape of ${name}`));
    const type = this.u32(`type of ${name}`);
    return { name, shape, type, offset: this.count(`offset of ${name}`) };
  }

  private checkTensors(tensors: GgufTensor[], metadata: Map<string, GgufValue>): number {
    const alignment = metadata.get('general.alignment') ?? 32;
    if (
      typeof alignment !== 'number' ||
      !(alignment >= 8 && alignment <= 65536 && Number.isInteger(Math.log2(alignment)))
    ) {
      throw this.invalid(`alignment ${alignment} is not a power of two`);
    }
    const data = Math.ceil(this.at / alignment) * alignment;
    const names = new Set<string>();
    for (const { name, shape, type, offset } of tensors) {
      if (names.has(name)) throw this.invalid(`tensor '${name}' occurs twice`);
      names.add(name);
      if (!TENSOR_TYPES[type])
        throw this.invalid(
          `tensor '${name}' has the unknown type ${type}; the file may be newer than this version of llama.cpp`,
        );
      const bytes = tensorBytes(type, shape);
      if (bytes === undefined) {
        throw this.invalid(`tensor '${name}' has the shape ${shape.join(' x ')}, which its type does not allow`);
      }
      if (offset % alignment !== 0 || !(data + offset + bytes <= this.size)) {
        throw this.invalid(
          `tensor '${name}' ends at byte ${data + offset + bytes}, but the file has ${this.size}. It is truncated or damaged: download it again`,
        );
      }
    }
    return data;
  }

  /** `types` takes the type of an array's items; absent inside an array, where another array is refused. */
  private value(type: number, key: string, types?: Map<string, number>): GgufValue {
    if (type === GGUF_TYPE.string) return this.string(key, MAX_TEXT).toString();
    if (type === GGUF_TYPE.array) {
      if (!types) throw this.invalid(`${key} is an array of arrays`);
      const itemType = this.u32(`item type of ${key}`);
      types.set(key, itemType);
      return this.array(itemType, this.count(`length of ${key}`), key);
    }
    const fixed = VALUE_BYTES[type];
    if (!fixed) throw this.invalid(`${key} has the unknown value type ${type}`);
    const b = this.bytes(fixed, key);
    switch (type) {
      case 0:
        return b.readUInt8();
      case 1:
        return b.readInt8();
      case 2:
        return b.readUInt16LE();
      case 3:
        return b.readInt16LE();
      case 4:
        return b.readUInt32LE();
      case 5:
        return b.readInt32LE();
      case 6:
        return b.readFloatLE();
      case 7:
        return b.readUInt8() !== 0;
      case 10:
        return b.readBigUInt64LE();
      case 11:
        return b.readBigInt64LE();
      default:
        return b.readDoubleLE();
    }
  }

  private array(itemType: number, length: number, key: string): GgufArray {
    if (key === VOCABULARY && itemType !== GGUF_TYPE.string) throw this.invalid(`${key} is not a list of texts`);
    const fixed = VALUE_BYTES[itemType];
    const kept = fixed && key.startsWith('xpatch.') ? KEPT_OWN_ARRAY : KEPT_ARRAY;
    if (fixed && length > kept) {
      this.skip(fixed * length, key);
      return { length, values: [], repeats: false };
    }
    const values: GgufArray['values'] = [];
    const texts = new Set<string>();
    let repeats = false;
    for (let i = 0; i < length; i++) {
      if (itemType === GGUF_TYPE.string && i >= KEPT_ARRAY && key !== VOCABULARY) {
        this.skip(this.count(`length of a text in ${key}`), key);
        continue;
      }
      // A token is bytes, not always text: as latin1 no two different ones look alike.
      const item =
        itemType === GGUF_TYPE.string ? this.string(key, MAX_NAME).toString('latin1') : this.value(itemType, key);
      if (i < kept) values.push(item as GgufArray['values'][number]);
      if (key !== VOCABULARY) continue;
      const text = (item as string).split('\0', 1)[0] as string; // llama.cpp reads so far
      if (text === '') continue;
      repeats ||= texts.has(text);
      texts.add(text);
    }
    return { length, values, repeats };
  }

  private u32(what: string): number {
    return this.bytes(4, what).readUInt32LE();
  }

  private count(what: string): number {
    const n = this.bytes(8, what).readBigUInt64LE();
    // Nothing in a file can be more numerous than its bytes; this also catches counts that would exhaust memory.
    if (n > BigInt(Math.max(this.size, 1)) * 4n)
      throw this.invalid(`${what} is ${n}, more than the file can hold. It is truncated or damaged: download it again`);
    return Number(n);
  }

  private name(what: string): string {
    return this.string(what, MAX_NAME).toString();
  }

  private string(what: string, most: number): Buffer {
    const length = this.count(`length of ${what}`);
    if (length > most) {
      throw this.invalid(`a text in ${what} has ${length} bytes, more than ${most}. It is damaged: download it again`);
    }
    return this.bytes(length, what);
  }

  private skip(n: number, what: string): void {
    if (this.at + n > this.size) throw this.invalid(`it ends inside ${what}. It is truncated: download it again`);
    this.at += n;
  }

  private bytes(n: number, what: string): Buffer {
    if (this.at + n > this.size) throw this.invalid(`it ends inside ${what}. It is truncated: download it again`);
    if (this.at < this.start || this.at + n > this.start + this.buffer.length) {
      this.buffer = Buffer.alloc(Math.min(Math.max(n, 1 << 20), this.size - this.at));
      this.start = this.at;
      for (let got = 0; got < this.buffer.length; ) {
        const read = readSync(this.file, this.buffer, got, this.buffer.length - got, this.start + got);
        if (read === 0) throw this.invalid(`it was cut off in ${what} while it was read. Wait until it is complete`);
        got += read;
      }
    }
    const from = this.at - this.start;
    this.at += n;
    return this.buffer.subarray(from, from + n);
  }

  private invalid(why: string): XpatchError {
    return new XpatchError('GGUF_INVALID', `'${this.path}' is not a usable GGUF file: ${why}.`);
  }
}
