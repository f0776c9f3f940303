import { existsSync } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { XpatchError } from '../util/errors.js';
import { syncFolder, writeError } from '../util/files.js';
import { type RawLine, splitLines } from '../util/lines.js';
import { openRegular } from '../util/read-file.js';

const FILE = { what: 'the lines', maxBytes: Number.MAX_SAFE_INTEGER } as const;

/** The lines of a file, in little memory. A file that does not exist has none. @throws {XpatchError} RUN_INVALID */
export async function* rawLines(path: string): AsyncGenerator<RawLine> {
  if (!existsSync(path)) return;
  const file = await openRegular(path, FILE).catch((cause: Error) => {
    throw new XpatchError('RUN_INVALID', cause.message, { cause });
  });
  yield* splitLines(file.createReadStream() as AsyncIterable<Buffer>);
}

/** What a run has written is no longer there. */
export function lostError(path: string, problem: string): XpatchError {
  const wayOut = 'Start the run again: what is missing is restored.';
  return new XpatchError('RUN_INVALID', `${path} ${problem} while the run was being written. ${wayOut}`);
}

/** A file that only grows, by whole lines that are on disk when `append` returns. */
export class LineFile {
  private turn: Promise<void> = Promise.resolve();

  private constructor(
    private readonly path: string,
    private readonly handle: FileHandle,
    /** Bytes of it. */
    public size: number,
  ) {}

  /**
   * @param size how much of it to keep; the rest is cut off. Defaults to all
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
   * Writes all lines with one write. If that fails (a full disk), what got through is cut off again.
   * @throws {XpatchError} FILE_WRITE; RUN_INVALID as `requireWhole`
   */
  append(lines: readonly object[]): Promise<void> {
    const bytes = Buffer.from(lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    const written = this.turn.then(() => this.write(bytes));
    this.turn = written.catch(() => undefined);
    return written;
  }

  /**
   * Whether what was written is still where others will look for it: not deleted, replaced, cut off or written to since.
   * @throws {XpatchError} RUN_INVALID
   */
  async requireWhole(): Promise<void> {
    const own = await this.handle.stat().catch((cause) => {
      throw writeError(this.path, cause); // closed, after a write that failed
    });
    const there = await stat(this.path).catch(() => undefined);
    const problem =
      there === undefined
        ? 'was deleted'
        : there.ino !== own.ino || there.dev !== own.dev
          ? 'was replaced'
          : there.size !== this.size
            ? `has ${there.size} bytes, but ${this.size} were written: it was changed`
            : undefined;
    if (problem === undefined) return;
    throw lostError(this.path, problem);
  }

  private async write(bytes: Buffer): Promise<void> {
    if (bytes.length === 0) return;
    // Before: after half a line that somebody has left, new ones would be lost too.
    await this.requireWhole();
    try {
      for (let at = 0; at < bytes.length; ) at += (await this.handle.write(bytes, at)).bytesWritten;
      await this.handle.sync();
      this.size += bytes.length;
    } catch (cause) {
      // If even this fails, the next process to open the run cuts off what is torn.
      await this.handle.truncate(this.size).catch(() => this.handle.close());
      throw writeError(this.path, cause);
    }
  }

  async close(): Promise<void> {
    await this.turn;
    await this.handle.close();
  }
}
