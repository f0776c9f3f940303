import { createReadStream } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { XpatchError } from '../util/errors.js';
import { syncFolder, writeError } from '../util/files.js';

/** A line of a file, with what is needed to name it and to cut it off. */
export interface RawLine {
  readonly bytes: Buffer;
  /** Counted from 1. */
  readonly number: number;
  /** Of its first byte. */
  readonly offset: number;
  /** Whether a line break ends it: the last line of a process that was killed has none. */
  readonly ended: boolean;
}

const NEWLINE = 0x0a;

/** The lines of a file, in little memory. A file that does not exist has none. @throws {XpatchError} RUN_INVALID */
export async function* rawLines(path: string): AsyncGenerator<RawLine> {
  const info = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw new XpatchError('RUN_INVALID', `${path} cannot be read: ${error.message}.`, { cause: error });
  });
  if (info === undefined) return;
  // A device or a pipe might never end.
  if (!info.isFile()) throw new XpatchError('RUN_INVALID', `${path} is no file. Remove it, or name another run.`);
  let rest: Buffer[] = [];
  let offset = 0;
  let number = 1;
  const line = (tail: Buffer, ended: boolean): RawLine => {
    const bytes = rest.length > 0 ? Buffer.concat([...rest, tail]) : tail;
    const made = { bytes, number, offset, ended };
    rest = [];
    number += 1;
    offset += bytes.length + 1;
    return made;
  };
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      yield line(chunk.subarray(start, end), true);
      start = end + 1;
    }
    if (start < chunk.length) rest.push(chunk.subarray(start));
  }
  if (rest.length > 0) yield line(Buffer.alloc(0), false);
}

/** A file that only grows, by whole lines that are on the disk when `append` returns. */
export class LineFile {
  private turn: Promise<void> = Promise.resolve();

  private constructor(
    private readonly path: string,
    private readonly handle: FileHandle,
    private size: number,
  ) {}

  /**
   * @param size what is kept of it; bytes after that are cut off. Defaults to all
   * @throws {XpatchError} FILE_WRITE
   */
  static async open(path: string, size?: number): Promise<LineFile> {
    let handle: FileHandle | undefined;
    try {
      handle = await open(path, 'a');
      const found = (await handle.stat()).size;
      if (size !== undefined && size < found) await handle.truncate(size);
      await handle.sync();
      await syncFolder(dirname(path));
      return new LineFile(path, handle, Math.min(found, size ?? found));
    } catch (cause) {
      await handle?.close();
      throw writeError(path, cause);
    }
  }

  /**
   * Writes all lines with one write. When that fails (a full disk), what got through of them is cut off again.
   * @throws {XpatchError} FILE_WRITE
   */
  append(lines: readonly object[]): Promise<void> {
    const bytes = Buffer.from(lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    const written = this.turn.then(() => this.write(bytes));
    this.turn = written.catch(() => undefined);
    return written;
  }

  private async write(bytes: Buffer): Promise<void> {
    if (bytes.length === 0) return;
    try {
      for (let at = 0; at < bytes.length; ) at += (await this.handle.write(bytes, at)).bytesWritten;
      await this.handle.sync();
      this.size += bytes.length;
    } catch (cause) {
      // Where even this fails, the next process to open the run cuts off what is torn.
      await this.handle.truncate(this.size).catch(() => this.handle.close());
      throw writeError(this.path, cause);
    }
  }

  async close(): Promise<void> {
    await this.turn;
    await this.handle.close();
  }
}
