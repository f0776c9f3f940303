import { type FileHandle, open } from 'node:fs/promises';
import { tensorBytes } from '../gguf/gguf.js';
import type { GgufLayout } from '../gguf/gguf-writer.js';
import { native, nativeError } from '../native/index.js';
import { XpatchError } from '../util/errors.js';
import { writeError } from '../util/files.js';
import type { FilePlan, TensorPlan } from './plan.js';

/** Bytes of a source that are in memory at once, per thread. */
const CHUNK_BYTES = 16 << 20;
/** What is written between two points from which a conversion can be resumed. */
const CHECKPOINT_BYTES = 64 << 20;

interface Chunk {
  plan: TensorPlan;
  /** Rows of the result. */
  first: number;
  count: number;
  /** Place in the file. */
  offset: number;
  bytes: number;
}

interface WriteEvents {
  signal?: AbortSignal | undefined;
  /** Bytes of the file that are written. */
  onWritten: (bytes: number) => void;
  /** All up to this byte is on the disk, whatever happens. */
  onDurable: (bytes: number) => Promise<void>;
}

/**
 * Writes the data of a planned file into `path`, which has its header and its size, in order, `threads` chunks at once.
 * @param from bytes that an earlier run has written for good
 * @throws {XpatchError} ABORTED, CHECKPOINT_INVALID, FILE_WRITE, SAFETENSORS_INVALID
 */
export async function writePlan(
  path: string,
  plan: FilePlan,
  layout: GgufLayout,
  from: number,
  threads: number,
  { signal, onWritten, onDurable }: WriteEvents,
): Promise<void> {
  const writing = (work: Promise<unknown>) =>
    work.catch((cause: unknown) => {
      throw writeError(path, cause);
    });
  const file = await open(path, 'r+').catch((cause: unknown) => {
    throw writeError(path, cause);
  });
  try {
    const queue = chunks(plan, layout, from);
    const done = new Watermark(Math.max(from, layout.header.length));
    let durable = done.at;
    let syncing: Promise<void> | undefined;
    const sync = async () => {
      const at = done.at;
      await writing(file.datasync());
      await onDurable(at);
      durable = at;
    };
    let failed = false;
    const work = async () => {
      const buffers = new Buffers();
      for (const chunk of queue) {
        if (failed) return;
        if (signal?.aborted)
          throw new XpatchError('ABORTED', 'The conversion was interrupted.', { cause: signal.reason });
        const end = done.begin(chunk);
        const data = await convert(chunk, buffers);
        await writing(writeAll(file, data, chunk.offset));
        end();
        onWritten(done.at);
        if (done.at - durable < CHECKPOINT_BYTES || syncing) continue;
        syncing = sync().finally(() => {
          syncing = undefined;
        });
        await syncing;
      }
    };
    // All are waited for: what still writes must not outlive the file.
    const results = await Promise.allSettled(
      Array.from({ length: threads }, () =>
        work().catch((error: unknown) => {
          failed = true;
          throw error;
        }),
      ),
    );
    await syncing;
    const problem = results.find((result) => result.status === 'rejected');
    if (problem) {
      // What is done is worth keeping, when the trouble is not the disk's.
      if (!(problem.reason instanceof XpatchError) || problem.reason.code !== 'FILE_WRITE') await sync();
      throw problem.reason;
    }
    await sync();
  } finally {
    await file.close();
  }
}

/** The place up to which everything is done, when pieces end in any order. */
class Watermark {
  private readonly open: { offset: number; end: number; done: boolean }[] = [];

  constructor(public at: number) {}

  /** Pieces begin in order. */
  begin({ offset, bytes }: Chunk): () => void {
    const piece = { offset, end: offset + bytes, done: false };
    this.open.push(piece);
    return () => {
      piece.done = true;
      while (this.open[0]?.done) this.at = (this.open.shift() as typeof piece).end;
    };
  }
}

function* chunks(plan: FilePlan, { places }: GgufLayout, from: number): Generator<Chunk> {
  for (const [i, tensor] of plan.tensors.entries()) {
    const place = places[i] as { offset: number; bytes: number };
    if (place.offset + place.bytes <= from) continue;
    const values = tensor.shape.reduce((a, b) => a * b, 1);
    const nRows = values / tensor.rowLength;
    const rowBytes = place.bytes / nRows;
    const perChunk = Math.max(1, Math.floor(CHUNK_BYTES / (tensor.rowLength * valueBytes(tensor.sourceType))));
    for (let first = 0; first < nRows; first += perChunk) {
      const count = Math.min(perChunk, nRows - first);
      const offset = place.offset + first * rowBytes;
      const bytes = count * rowBytes;
      if (offset + bytes > from) yield { plan: tensor, first, count, offset, bytes };
    }
  }
}

function valueBytes(type: number): number {
  return tensorBytes(type, [1]) as number;
}

/** Memory that one thread uses again for every chunk. */
class Buffers {
  private readonly kept = new Map<string, Uint8Array>();

  get(name: string, bytes: number): Uint8Array {
    let buffer = this.kept.get(name);
    if (!buffer || buffer.length < bytes) {
      buffer = new Uint8Array(new ArrayBuffer(bytes));
      this.kept.set(name, buffer);
    }
    return buffer.subarray(0, bytes);
  }
}

async function convert(chunk: Chunk, buffers: Buffers): Promise<Uint8Array> {
  const { plan } = chunk;
  const source = await readRows(chunk, buffers);
  const result = buffers.get('result', chunk.bytes);
  try {
    await native().addon.quantise(source, plan.sourceType, result, plan.type, plan.rowLength);
  } catch (error) {
    const { code, message } = error as { code?: string; message?: string };
    const { file, info } = plan.source;
    if (code !== 'NOT_FINITE') throw nativeError(error, `'${info.name}' cannot be converted`);
    throw new XpatchError(
      'CHECKPOINT_INVALID',
      `Tensor '${info.name}' of ${file.path} cannot be converted: ${message}.`,
      { cause: error },
    );
  }
  return result;
}

/** Rows of the source in the result's order. */
async function readRows({ plan, first, count }: Chunk, buffers: Buffers): Promise<Uint8Array> {
  const { file, info } = plan.source;
  const rowBytes = plan.rowLength * valueBytes(plan.sourceType);
  const source = buffers.get('source', count * rowBytes);
  if (!plan.rows) {
    await file.readBytes(info.name, first * rowBytes, source);
    return source;
  }
  // Neighbours in the source are read at once, then each row goes to its place.
  const wanted = plan.rows.subarray(first, first + count);
  const order = Uint32Array.from(wanted.keys()).sort((a, b) => (wanted[a] as number) - (wanted[b] as number));
  const sorted = buffers.get('sorted', count * rowBytes);
  for (let start = 0; start < count; ) {
    const row = (i: number) => wanted[order[i] as number] as number;
    let end = start + 1;
    while (end < count && row(end) === row(end - 1) + 1) end++;
    await file.readBytes(info.name, row(start) * rowBytes, sorted.subarray(start * rowBytes, end * rowBytes));
    start = end;
  }
  for (let i = 0; i < count; i++) {
    source.set(sorted.subarray(i * rowBytes, (i + 1) * rowBytes), (order[i] as number) * rowBytes);
  }
  return source;
}

async function writeAll(file: FileHandle, data: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < data.length) {
    const { bytesWritten } = await file.write(data, done, data.length - done, position + done);
    done += bytesWritten;
  }
}
