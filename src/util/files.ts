import { type Hash, randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, rename, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { XpatchError } from './errors.js';
import { openRegular } from './read-file.js';

const WAYS_OUT: Record<string, (path: string) => string> = {
  ENOENT: (path) => `The folder ${dirname(path)} does not exist: create it, or name another one.`,
  ENOTDIR: (path) => `${dirname(path)} is not a folder: name another one.`,
  EEXIST: () => 'There is a file of that name: name another one.',
  EISDIR: () => 'It is a folder: name a file inside it.',
  EACCES: (path) => `No permission to write in ${dirname(path)}: name a folder you may write to.`,
  EPERM: (path) => `No permission to write in ${dirname(path)}: name a folder you may write to.`,
  EROFS: () => 'The file system is read-only: name a folder on another one.',
  ENOSPC: () => 'The disk is full: free some space, or name a folder on another disk.',
  EDQUOT: () => 'Your disk quota is used up: free some space, or name a folder on another disk.',
  EFBIG: () => 'The file would grow beyond what this system allows: raise the limit (ulimit -f), or split the work.',
};

/** FILE_WRITE with a way out of what the system said. */
export function writeError(path: string, cause: unknown): XpatchError {
  const wayOut = WAYS_OUT[(cause as NodeJS.ErrnoException).code ?? '']?.(path) ?? (cause as Error).message;
  return new XpatchError('FILE_WRITE', `Could not write ${path}. ${wayOut}`, { cause });
}

/**
 * Writes a whole file so that a reader, a crash or a full disk never meets half of it: everything goes into a temporary
 * file beside it, which is flushed to the disk and then renamed onto `path`. On failure the temporary file is removed
 * and a file that stood there before is untouched.
 *
 * @param content text (UTF-8), bytes, or byte chunks written one after the other
 * @throws {XpatchError} FILE_WRITE
 */
export async function writeFileAtomic(
  path: string,
  content: string | Uint8Array | Iterable<Uint8Array>,
): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`);
  let handle: FileHandle | undefined;
  let created = false;
  try {
    handle = await open(temporary, 'wx');
    created = true;
    const chunks = typeof content === 'string' || content instanceof Uint8Array ? [content] : content;
    for (const chunk of chunks) await handle.writeFile(chunk);
    await handle.sync();
    await handle.close();
    handle = undefined;
    await rename(temporary, path);
    created = false;
    await syncFolder(dirname(path));
  } catch (cause) {
    await handle?.close().catch(() => undefined);
    if (created) await unlink(temporary).catch(() => undefined);
    throw writeError(path, cause);
  }
}

/** Makes the entries of a folder last through a power cut, on systems where a folder can be opened. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}

/**
 * Makes a folder and those above it, so that they last through a power cut; one that is there already is fine. Not by mkdir's `recursive`, which never ends where the
 * system says of a folder's child that it does not exist, as below /proc.
 *
 * @throws {XpatchError} FILE_WRITE
 */
export async function makeFolder(path: string): Promise<void> {
  const make = async (folder: string, parents: boolean): Promise<void> => {
    try {
      await mkdir(folder);
      await syncFolder(dirname(folder));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EEXIST' && (await stat(folder)).isDirectory()) return;
      if (code !== 'ENOENT' || !parents || dirname(folder) === folder) throw error;
      await make(dirname(folder), true);
      await make(folder, false);
    }
  };
  await make(path, true).catch((cause) => {
    throw writeError(path, cause);
  });
}

/** Feeds a file to a hash, in pieces. @throws {XpatchError} FILE_NOT_FOUND */
export async function hashInto(hash: Hash, path: string, signal?: AbortSignal): Promise<void> {
  const file = await openRegular(path, { what: 'the file', maxBytes: Number.MAX_SAFE_INTEGER });
  for await (const chunk of file.createReadStream({ signal, highWaterMark: 4 << 20 })) hash.update(chunk as Buffer);
}
