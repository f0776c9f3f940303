import { type FileHandle, open } from 'node:fs/promises';
import { XpatchError } from '../errors.js';

/**
 * A check of a GGUF file before llama.cpp sees it. llama.cpp refuses many broken files by itself, but asserts (and ends
 * the process) or computes nonsense on others: sizes that do not fit together, tensors outside the file.
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
export interface GgufHeader {
  version: number;
  metadata: Map<string, GgufValue>;
  tensors: GgufTensor[];
}

/** Arrays are kept only up to this many elements; longer ones (vocabularies) are checked and counted. */
const KEPT_ARRAY = 64;

export type GgufValue = number | bigint | boolean | string | GgufArray;
export interface GgufArray {
  length: number;
  values: (number | bigint | boolean | string)[];
}
export interface GgufTensor {
  name: string;
  shape: number[];
  type: number;
  offset: number;
}

/** ggml type id -> [elements a block, bytes a block]; ids as in ggml.h. */
const TENSOR_TYPES: Record<number, [number, number]> = {
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
};

/** Bytes of a fixed-size metadata value, by type id. */
const VALUE_BYTES: Record<number, number> = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };
const STRING = 8;
const ARRAY = 9;

/**
 * Reads and checks the header of a GGUF file: magic, version, metadata, and that every tensor lies inside the file.
 *
 * @throws XpatchError FILE_NOT_FOUND, GGUF_INVALID.
 */
export async function readGgufHeader(path: string): Promise<GgufHeader> {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (error) {
    throw new XpatchError('FILE_NOT_FOUND', `'${path}' cannot be opened: ${(error as Error).message}`, { cause: error });
  }
  try {
    const stat = await file.stat();
    if (!stat.isFile()) throw new XpatchError('GGUF_INVALID', `'${path}' is not a file.`);
    return await new HeaderReader(file, stat.size, path).read();
  } finally {
    await file.close();
  }
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
    private readonly file: FileHandle,
    private readonly size: number,
    private readonly path: string,
  ) {}

  async read(): Promise<GgufHeader> {
    const magic = (await this.bytes(4, 'magic')).toString('latin1');
    if (magic !== 'GGUF') {
      const hint = magic.startsWith('{"') || magic.charCodeAt(0) < 32 ? ' Is it a safetensors file?' : '';
      throw this.invalid(`it does not start with "GGUF".${hint} Models must be GGUF files`);
    }
    const version = await this.u32('version');
    if (version < 2 || version > 3) throw this.invalid(`GGUF version ${version} is not supported (2 and 3 are)`);
    const nTensors = await this.count('number of tensors');
    const nPairs = await this.count('number of metadata pairs');

    const metadata = new Map<string, GgufValue>();
    for (let i = 0; i < nPairs; i++) {
      const key = await this.string('metadata key');
      if (metadata.has(key)) throw this.invalid(`metadata key '${key}' stands twice`);
      metadata.set(key, await this.value(await this.u32(`type of ${key}`), key, 0));
    }
    const tensors: GgufTensor[] = [];
    for (let i = 0; i < nTensors; i++) tensors.push(await this.tensor());
    this.checkTensors(tensors, metadata);
    return { version, metadata, tensors };
  }

  private async tensor(): Promise<GgufTensor> {
    const name = await this.string('tensor name');
    const nDims = await this.u32(`dimensions of ${name}`);
    if (nDims < 1 || nDims > 4) throw this.invalid(`tensor '${name}' has ${nDims} dimensions`);
    const shape: number[] = [];
    for (let d = 0; d < nDims; d++) shape.push(await this.count(`shape of ${name}`));
    const type = await this.u32(`type of ${name}`);
    return { name, shape, type, offset: await this.count(`offset of ${name}`) };
  }

  private checkTensors(tensors: GgufTensor[], metadata: Map<string, GgufValue>): void {
    const alignment = Number(metadata.get('general.alignment') ?? 32);
    if (!(alignment >= 1 && alignment <= 65536 && Number.isInteger(Math.log2(alignment)))) {
      throw this.invalid(`alignment ${alignment} is not a power of two`);
    }
    const data = Math.ceil(this.at / alignment) * alignment;
    const names = new Set<string>();
    for (const { name, shape, type, offset } of tensors) {
      if (names.has(name)) throw this.invalid(`tensor '${name}' stands twice`);
      names.add(name);
      const layout = TENSOR_TYPES[type];
      if (!layout) throw this.invalid(`tensor '${name}' has the unknown type ${type}; the file may be newer than this version of llama.cpp`);
      if (shape.some((n) => n < 1) || (shape[0] as number) % layout[0] !== 0) {
        throw this.invalid(`tensor '${name}' has the shape ${shape.join(' x ')}, which its type cannot have`);
      }
      const bytes = (shape.reduce((a, b) => a * b, 1) / layout[0]) * layout[1];
      if (offset % alignment !== 0 || !(data + offset + bytes <= this.size)) {
        throw this.invalid(
          `tensor '${name}' ends at byte ${data + offset + bytes}, the file has ${this.size}. It is truncated or damaged: download it again`,
        );
      }
    }
  }

  private async value(type: number, key: string, depth: number): Promise<GgufValue> {
    if (type === STRING) return this.string(key);
    if (type === ARRAY) {
      if (depth > 0) throw this.invalid(`${key} is an array of arrays`);
      const itemType = await this.u32(`item type of ${key}`);
      const length = await this.count(`length of ${key}`);
      const fixed = VALUE_BYTES[itemType];
      if (fixed && length > KEPT_ARRAY) {
        await this.skip(fixed * length, key);
        return { length, values: [] };
      }
      const values: GgufArray['values'] = [];
      for (let i = 0; i < length; i++) {
        const item = await this.value(itemType, key, depth + 1);
        if (i < KEPT_ARRAY) values.push(item as GgufArray['values'][number]);
      }
      return { length, values };
    }
    const fixed = VALUE_BYTES[type];
    if (!fixed) throw this.invalid(`${key} has the unknown value type ${type}`);
    const b = await this.bytes(fixed, key);
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

  private async u32(what: string): Promise<number> {
    return (await this.bytes(4, what)).readUInt32LE();
  }

  private async count(what: string): Promise<number> {
    const n = (await this.bytes(8, what)).readBigUInt64LE();
    // Nothing in a file can be more numerous than its bytes; this also catches counts that would exhaust memory.
    if (n > BigInt(Math.max(this.size, 1)) * 4n) throw this.invalid(`${what} is ${n}, more than the file can hold`);
    return Number(n);
  }

  private async string(what: string): Promise<string> {
    const length = await this.count(`length of ${what}`);
    return (await this.bytes(length, what)).toString('utf8');
  }

  private async skip(n: number, what: string): Promise<void> {
    if (this.at + n > this.size) throw this.invalid(`it ends inside ${what}. It is truncated: download it again`);
    this.at += n;
  }

  private async bytes(n: number, what: string): Promise<Buffer> {
    if (this.at + n > this.size) throw this.invalid(`it ends inside ${what}. It is truncated: download it again`);
    if (this.at < this.start || this.at + n > this.start + this.buffer.length) {
      this.buffer = Buffer.alloc(Math.min(Math.max(n, 1 << 20), this.size - this.at));
      await this.file.read(this.buffer, 0, this.buffer.length, this.at);
      this.start = this.at;
    }
    const from = this.at - this.start;
    this.at += n;
    return this.buffer.subarray(from, from + n);
  }

  private invalid(why: string): XpatchError {
    return new XpatchError('GGUF_INVALID', `'${this.path}' is not a usable GGUF file: ${why}.`);
  }
}
