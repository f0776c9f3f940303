import { closeSync, constants, fstatSync, openSync, readSync, realpathSync, type Stats, statSync } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { Socket } from 'node:net';
import { addAbortSignal } from 'node:stream';
import { XpatchError, type XpatchErrorCode } from './errors.js';
import { systemReason } from './system-reason.js';

/** A kind of file to read: its name in messages, and its size limit. */
export interface FileKind {
  /** With an article: `the task file`. */
  readonly what: string;
  /** A longer file is refused, and so is a pipe that sends more. */
  readonly maxBytes: number;
  /** Error code for a file that is too long, or not a file at all. Defaults to FILE_NOT_FOUND. */
  readonly code?: XpatchErrorCode;
  /** Whether a pipe is allowed, such as a shell's `<(command)`: only for what is read once. Defaults to false. */
  readonly pipe?: boolean;
}

/** A pipe without a writer must not hold up `open`; for a file it makes no difference. */
const FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);
const CHUNK_BYTES = 1 << 16;

/** Files that results will replace, as the user named them, by their real paths. */
const outputs = new Map<string, string>();

/**
 * Until it is disposed of, reading this file is refused: a result must not replace what it is made from. Many files are known only
 * once they are read, such as the pictures that a task names or the parts of a model.
 *
 * @param real its path without symbolic links
 * @param named what the user calls it
 */
export function reserveOutput(real: string, named: string): Disposable {
  outputs.set(real, named);
  return { [Symbol.dispose]: () => void outputs.delete(real) };
}

/** @throws {XpatchError} FILE_WRITE for a file that a result will replace */
export function requireNotOutput(path: string): void {
  const named = outputs.size === 0 ? undefined : outputs.get(realOf(path));
  if (named !== undefined) throw replacesInput(named);
}

export function replacesInput(named: string): XpatchError {
  const message = `Cannot write ${named}. The command reads this file: name another for the result.`;
  return new XpatchError('FILE_WRITE', message);
}

function realOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path; // deleted while it is open, as /dev/fd/3 may be
  }
}

/**
 * Reads a whole file; what has no end, such as a device, is refused before a byte of it is read.
 *
 * @param signal ends the wait for a silent pipe
 * @throws {XpatchError} FILE_NOT_FOUND if it cannot be read; `kind.code` if it is too long, or not a file; ABORTED
 */
export async function readWhole(path: string, kind: FileKind, signal?: AbortSignal): Promise<Buffer> {
  try {
    const info = await stat(path);
    requireKind(path, kind, info);
    if (info.isFIFO()) {
      const collected = new Collected(path, kind);
      for await (const chunk of pipe(path, signal)) collected.add(chunk);
      return collected.all();
    }
    await using handle = await openFile(path, kind);
    return await readHandle(path, kind, handle, signal);
  } catch (cause) {
    throw readError(path, kind, cause, signal);
  }
}

/** The same, synchronously, for small files of our own; not for pipes. */
export function readWholeSync(path: string, kind: FileKind): Buffer {
  let file: number | undefined;
  try {
    requireKind(path, kind, statSync(path));
    file = openSync(path, FLAGS);
    const info = fstatSync(file);
    requireKind(path, kind, info);
    const collected = new Collected(path, kind);
    for (let length = firstLength(info, kind); ; length = CHUNK_BYTES) {
      const chunk = Buffer.allocUnsafeSlow(length);
      const bytes = readSync(file, chunk, 0, length, null);
      if (bytes === 0) return collected.all();
      collected.add(chunk.subarray(0, bytes));
    }
  } catch (cause) {
    throw readError(path, kind, cause);
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/** Reads a file piece by piece, however long it is. @throws {XpatchError} as `readWhole` */
export async function* readChunks(path: string, kind: FileKind, signal?: AbortSignal): AsyncGenerator<Buffer> {
  try {
    const info = await stat(path);
    requireKind(path, kind, info);
    if (info.isFIFO()) yield* pipe(path, signal);
    else yield* (await openFile(path, kind)).createReadStream({ signal }) as AsyncIterable<Buffer>;
  } catch (cause) {
    throw readError(path, kind, cause, signal);
  }
}

/**
 * Opens a file whose parts are read one by one, or in a stream; nothing but a file.
 * @throws {XpatchError} as `readWhole`
 */
export async function openRegular(path: string, kind: FileKind): Promise<FileHandle> {
  try {
    // Before it is opened: opening a device may already have an effect.
    requireKind(path, kind, await stat(path));
    return await openFile(path, kind);
  } catch (cause) {
    throw readError(path, kind, cause);
  }
}

async function openFile(path: string, kind: FileKind): Promise<FileHandle> {
  const handle = await open(path, FLAGS);
  try {
    requireKind(path, { ...kind, pipe: false }, await handle.stat());
    return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function readHandle(path: string, kind: FileKind, handle: FileHandle, signal?: AbortSignal): Promise<Buffer> {
  const collected = new Collected(path, kind);
  for (let length = firstLength(await handle.stat(), kind); ; length = CHUNK_BYTES) {
    signal?.throwIfAborted();
    const chunk = Buffer.allocUnsafeSlow(length);
    const { bytesRead } = await handle.read(chunk, 0, length, null);
    if (bytesRead === 0) return collected.all();
    collected.add(chunk.subarray(0, bytesRead));
  }
}

/** Through the event loop: a read that waits in a thread would hold up the end of the process. */
function pipe(path: string, signal: AbortSignal | undefined): AsyncIterable<Buffer> {
  const socket = new Socket({ fd: openSync(path, FLAGS), readable: true, writable: false });
  return signal ? addAbortSignal(signal, socket) : socket;
}

/** One byte more than the file has, so that one read shows that it has ended. */
function firstLength({ size }: Stats, { maxBytes }: FileKind): number {
  return Math.min(Math.max(size, 4096), maxBytes) + 1;
}

/** What has been read so far: some files grow, and those of /proc do not say how long they are. */
class Collected {
  private readonly chunks: Buffer[] = [];
  private bytes = 0;

  constructor(
    private readonly path: string,
    private readonly kind: FileKind,
  ) {}

  add(chunk: Buffer): void {
    this.bytes += chunk.length;
    if (this.bytes > this.kind.maxBytes) throw tooLong(this.path, this.kind);
    this.chunks.push(chunk);
  }

  all(): Buffer {
    const [only] = this.chunks;
    return only !== undefined && this.chunks.length === 1 ? only : Buffer.concat(this.chunks);
  }
}

function requireKind(path: string, kind: FileKind, info: Stats): void {
  const { what, code = 'FILE_NOT_FOUND', pipe } = kind;
  if (info.isFile()) {
    requireNotOutput(path);
    if (info.size > kind.maxBytes) throw tooLong(path, kind, info.size);
    return;
  }
  if (info.isFIFO() && pipe) return;
  throw new XpatchError(code, `Cannot read ${what} ${path}: it is ${kindOf(info)}.`);
}

/** What is at a path that is not a file, with the way out. */
export function kindOf(info: Pick<Stats, 'isDirectory' | 'isFIFO' | 'isSocket'>): string {
  if (info.isDirectory()) return 'a folder. Name a file in it';
  if (info.isFIFO()) return 'a pipe, but it is read more than once. Write it to a file first, and name that';
  return `a ${info.isSocket() ? 'socket' : 'device'}, which has no end. Name a file`;
}

function tooLong(path: string, { what, maxBytes, code = 'FILE_NOT_FOUND' }: FileKind, size?: number): XpatchError {
  const found =
    size === undefined ? `more than ${bytes(maxBytes)}` : `${size} bytes, but may have at most ${bytes(maxBytes)}`;
  return new XpatchError(code, `Cannot read ${what} ${path}: it has ${found}. Check the path.`);
}

function bytes(n: number): string {
  return n >= 1 << 20 ? `${Math.floor(n / (1 << 20))} MiB` : `${n} bytes`;
}

function readError(path: string, { what }: FileKind, cause: unknown, signal?: AbortSignal): XpatchError {
  if (cause instanceof XpatchError) return cause;
  if (signal?.aborted) return new XpatchError('ABORTED', `${path} was not read to its end.`, { cause });
  const message = `Cannot read ${what} ${path}: ${systemReason(cause)}. Check the path.`;
  return new XpatchError('FILE_NOT_FOUND', message, { cause });
}
