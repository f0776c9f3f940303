import { XpatchError } from './errors.js';
import { isRecord, parseJson } from './json.js';

/** Bytes of one element, for every type that is read. */
const ELEMENT_BYTES = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  U16: 2,
  I16: 2,
  F16: 2,
  BF16: 2,
  U32: 4,
  I32: 4,
  F32: 4,
  U64: 8,
  I64: 8,
  F64: 8,
} as const;

/** Types of numbers that safetensors files are read and written with. */
export type SafetensorsDtype = keyof typeof ELEMENT_BYTES;

/** One tensor of a file. Nothing of its data has been read yet. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  /** Row-major; `[]` is a scalar. */
  readonly shape: readonly number[];
  /** Number of elements. */
  readonly length: number;
  /** Place of the first byte in the file, and number of bytes. */
  readonly offset: number;
  readonly bytes: number;
}

/** The format's own bound on the header. A 70 B model's header has less than 0.2 MB. */
export const MAX_HEADER_BYTES = 100_000_000;
export const METADATA_KEY = '__metadata__';

export function invalidSafetensors(path: string, problem: string, cause?: unknown): XpatchError {
  const wayOut = 'Write or download the file again; an intact one opens with safetensors.safe_open in Python.';
  return new XpatchError('SAFETENSORS_INVALID', `${path} is not a usable safetensors file: ${problem}. ${wayOut}`, {
    cause,
  });
}

/** @throws {XpatchError} SAFETENSORS_INVALID */
export function parseHeader(path: string, bytes: Buffer): Record<string, unknown> {
  if (bytes[0] !== 0x7b) throw invalidSafetensors(path, 'its header does not begin with {');
  try {
    return parseJson(bytes) as Record<string, unknown>;
  } catch (cause) {
    throw invalidSafetensors(path, `its header ${(cause as Error).message}`, cause);
  }
}

/** @throws {XpatchError} SAFETENSORS_INVALID */
export function checkMetadata(path: string, metadata: unknown): Readonly<Record<string, string>> {
  if (metadata === undefined) return Object.freeze({});
  if (!isRecord(metadata)) throw invalidSafetensors(path, `${METADATA_KEY} is not an object`);
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== 'string')
      throw invalidSafetensors(path, `the metadata of key ${JSON.stringify(key)} is not a string`);
  }
  return Object.freeze(metadata as Record<string, string>);
}

/** @throws {XpatchError} SAFETENSORS_INVALID */
export function checkTensors(
  path: string,
  header: Readonly<Record<string, unknown>>,
  dataStart: number,
  fileBytes: number,
): ReadonlyMap<string, TensorInfo> {
  const tensors = Object.entries(header)
    .filter(([name]) => name !== METADATA_KEY)
    .map(([name, entry]) => checkTensor(path, name, entry, dataStart))
    .sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  // The format wants every data byte to belong to exactly one tensor; this one loop rules out gaps, overlaps and both
  // kinds of wrong length.
  let expected = dataStart;
  for (const tensor of tensors) {
    const name = JSON.stringify(tensor.name);
    if (tensor.offset < expected) throw invalidSafetensors(path, `tensor ${name} overlaps the one before it`);
    if (tensor.offset > expected) throw invalidSafetensors(path, `there is a gap before tensor ${name}`);
    expected += tensor.bytes;
  }
  if (expected !== fileBytes) {
    throw invalidSafetensors(
      path,
      `its tensors end at byte ${expected}, but the file has ${fileBytes} (cut off, or something appended)`,
    );
  }
  return new Map(tensors.map((tensor) => [tensor.name, tensor]));
}

function checkTensor(path: string, name: string, entry: unknown, dataStart: number): TensorInfo {
  const bad = (problem: string) => invalidSafetensors(path, `tensor ${JSON.stringify(name)} ${problem}`);
  const isCount = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 0;
  if (typeof entry !== 'object' || entry === null) throw bad('is not described by an object');
  const { dtype, shape, data_offsets: offsets } = entry as Record<string, unknown>;
  if (typeof dtype !== 'string' || !Object.hasOwn(ELEMENT_BYTES, dtype)) {
    throw bad(`has the type ${JSON.stringify(dtype)}; ${Object.keys(ELEMENT_BYTES).join(', ')} are read`);
  }
  if (!Array.isArray(shape) || !shape.every(isCount)) throw bad('has a shape that is not a list of counts');
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    throw bad('has data_offsets that are not two counts');
  }
  const [begin, end] = offsets as [number, number];
  const length = shape.reduce((a: number, b: number) => a * b, 1);
  const bytes = length * ELEMENT_BYTES[dtype as SafetensorsDtype];
  // A product past 2^53 is inexact, so it must not be compared at all.
  if (!Number.isSafeInteger(bytes) || end - begin !== bytes) {
    throw bad(
      `of type ${dtype} and shape [${shape.join(', ')}] needs ${bytes} bytes, but its data_offsets are ${begin}, ${end}`,
    );
  }
  const info = {
    name,
    dtype: dtype as SafetensorsDtype,
    shape: Object.freeze(shape),
    length,
    offset: dataStart + begin,
    bytes,
  };
  return Object.freeze(info);
}
