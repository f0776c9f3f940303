import { createHash } from 'node:crypto';
import { existsSync, renameSync, rmSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { XpatchError } from '../util/errors.js';
import { hashInto, makeFolder, syncFolder, writeError } from '../util/files.js';
import { type FileBytes, mismatch } from './hub.js';
import type { HubFile } from './hub-source.js';

export interface TransferEvents {
  readonly signal?: AbortSignal;
  /** Bytes of this file that are there. */
  onBytes(done: number): void;
  /** The file is compared with its hash. */
  onVerify(): void;
  onNote(text: string): void;
}

/** So often a connection may break without a byte more than before. */
const VAIN_ATTEMPTS = 3;
const PAUSE_MS = 500;

/** What a file is called until it is complete. */
export function partialName({ hash }: HubFile): string {
  return `${hash.replace(/^\w+:/, '').slice(0, 24)}.part`;
}

/**
 * Downloads a file, or the rest of it, into the folder `partial`, compares it with its hash and moves it to `target`.
 *
 * @param openFrom asks for the file from a byte on
 * @throws {XpatchError} DOWNLOAD_MISMATCH, DOWNLOAD_FAILED, FILE_WRITE and what `openFrom` throws
 */
export async function fetchFile(
  file: HubFile,
  paths: { readonly partial: string; readonly target: string },
  openFrom: (byte: number) => Promise<FileBytes>,
  events: TransferEvents,
): Promise<void> {
  const path = join(paths.partial, partialName(file));
  await makeFolder(paths.partial);
  for (;;) {
    const continued = existsSync(path);
    await transfer(file, path, openFrom, events);
    events.onVerify();
    const problem = await compare(path, file, events.signal);
    if (problem === undefined) break;
    rmSync(path);
    if (!continued) throw mismatch(file, problem);
    events.onNote(`${file.path} was resumed but does not match its hash: downloading it again from the start`);
  }
  try {
    await makeFolder(dirname(paths.target));
    renameSync(path, paths.target);
    await syncFolder(dirname(paths.target));
  } catch (cause) {
    throw writeError(paths.target, cause);
  }
}

async function transfer(
  file: HubFile,
  path: string,
  openFrom: (byte: number) => Promise<FileBytes>,
  { signal, onBytes }: TransferEvents,
): Promise<void> {
  const onDisk = <T>(work: Promise<T>) =>
    work.catch((cause) => {
      throw writeError(path, cause);
    });
  await using handle = await onDisk(open(path, 'a'));
  let done = (await handle.stat()).size;
  let best = done;
  for (let vain = 0; done < file.size; ) {
    let broken: XpatchError | undefined;
    try {
      const { from, bytes } = await openFrom(done);
      if (from < done) await onDisk(handle.truncate(from));
      done = from;
      for await (const chunk of bytes) {
        const wanted = chunk.subarray(0, file.size - done);
        await onDisk(handle.appendFile(wanted));
        done += wanted.length;
        onBytes(done);
        if (done === file.size) break;
      }
    } catch (error) {
      if (!(error instanceof XpatchError) || error.code !== 'DOWNLOAD_FAILED' || signal?.aborted) throw error;
      broken = error;
    }
    vain = done > best ? 0 : vain + 1;
    best = Math.max(best, done);
    if (vain >= VAIN_ATTEMPTS) {
      throw broken ?? new XpatchError('DOWNLOAD_FAILED', `${file.path} does not arrive completely. Try again later.`);
    }
    if (vain > 0) await delay(PAUSE_MS * vain, undefined, { signal });
  }
  await onDisk(handle.sync());
}

/** What is wrong with a file; undefined if nothing is. */
async function compare(path: string, { size, hash }: HubFile, signal?: AbortSignal): Promise<string | undefined> {
  const actual = statSync(path).size;
  if (actual !== size) return `it has ${actual} bytes instead of ${size}`;
  const [kind, expected] = hash.split(':');
  const digest = createHash(kind === 'git' ? 'sha1' : 'sha256');
  if (kind === 'git') digest.update(`blob ${size}\0`);
  await hashInto(digest, path, signal);
  const found = digest.digest('hex');
  return found === expected ? undefined : `its hash is ${found} instead of ${expected}`;
}
