import { createHash, type Hash, randomBytes } from 'node:crypto';
import { constants, createWriteStream, existsSync, openSync } from 'node:fs';
import { type FileHandle, mkdir, open, readlink, realpath, rename, stat, unlink } from 'node:fs/promises';
import { Socket } from 'node:net';
import { basename, dirname, join, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { XpatchError } from './errors.js';
import { openRegular } from './read-file.js';

const WAYS_OUT: Record<string, (path: string) => string> = {
  ENOENT: (path) =>
    existsSync(dirname(path))
      ? 'No file can have this name: give another.'
      : `The folder ${dirname(path)} does not exist: create it, or name another.`,
  ENOTDIR: (path) => `${dirname(path)} is not a folder: name another.`,
  EEXIST: () => 'There is already a file of that name: choose another.',
  EISDIR: () => 'It is a folder: name a file inside it.',
  EACCES: (path) => `No permission to write in ${dirname(path)}: name a folder you may write to.`,
  EPERM: (path) => `No permission to write in ${dirname(path)}: name a folder you may write to.`,
  EROFS: () => 'The file system is read-only: name a folder on another.',
  ENOSPC: () => 'The disk is full: free some space, or name a folder on another disk.',
  EDQUOT: () => 'Your disk quota is used up: free some space, or name a folder on another disk.',
  ENXIO: () => 'Nobody reads from it: start its reader first, or name a file.',
  EPIPE: () => 'Its reader left before the end.',
  EINTR: () => 'The call was interrupted: try again.',
  ENAMETOOLONG: () => 'The name is too long for this system: give a shorter one.',
  ELOOP: () => 'Its symbolic links form a loop: name another.',
  EFBIG: () => 'The file would grow beyond what this system allows: raise the limit (ulimit -f), or split the work.',
};

/** FILE_WRITE with a way out for what the system said. */
export function writeError(path: string, cause: unknown): XpatchError {
  if (cause instanceof XpatchError) return cause;
  const wayOut = WAYS_OUT[(cause as NodeJS.ErrnoException).code ?? '']?.(path) ?? (cause as Error).message;
  return new XpatchError('FILE_WRITE', `Could not write ${path}. ${wayOut}`, { cause });
}

/**
 * Writes a whole file so that no reader, crash or full disk ever leaves half of it: everything goes into a temporary
 * file next to it, which is flushed to disk and then renamed onto `path`. On failure the temporary file is removed
 * and an existing file is untouched. A symbolic link stays, and the file that it names is written. A pipe or
 * a device is written to; a disk or a socket is refused.
 *
 * @param content text (UTF-8), bytes, or byte chunks written one after the other
 * @throws {XpatchError} FILE_WRITE
 */
export async function writeFileAtomic(
  path: string,
  content: string | Uint8Array | Iterable<Uint8Array>,
): Promise<void> {
  const chunks = typeof content === 'string' || content instanceof Uint8Array ? [content] : content;
  try {
    const target = await findTarget(path);
    if (target.kind === 'file') await replaceFile(target.path, chunks);
    else await writeThrough(target, chunks);
  } catch (cause) {
    throw writeError(path, cause);
  }
}

/** Characters, of up to three bytes each; file systems allow 255 bytes. */
const NAME_PART = 64;

async function replaceFile(path: string, chunks: Iterable<string | Uint8Array>): Promise<void> {
  // The longest names leave no room for more: a part of the name tells a person whose it is.
  const name = `.${basename(path).slice(0, NAME_PART)}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`;
  const temporary = join(dirname(path), name);
  let handle: FileHandle | undefined;
  let created = false;
  try {
    handle = await open(temporary, 'wx');
    created = true;
    const before = await stat(path).catch(() => undefined);
    if (before) await handle.chmod(before.mode & 0o777);
    for (const chunk of chunks) await handle.writeFile(chunk);
    await handle.sync();
    await handle.close();
    handle = undefined;
    await rename(temporary, path);
    created = false;
    await syncFolder(dirname(path));
  } finally {
    await handle?.close().catch(() => undefined);
    if (created) await unlink(temporary).catch(() => undefined);
  }
}

/** Where a file is to be written, after symbolic links. Only a file, or a path that does not exist yet, can be replaced. */
export interface WriteTarget {
  readonly path: string;
  readonly kind: 'file' | 'pipe' | 'device';
}

/** @throws what the system says, EISDIR for a folder; {XpatchError} FILE_WRITE for a disk or a socket */
export async function findTarget(path: string): Promise<WriteTarget> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
  });
  if (found === undefined) return { path: await endOfLinks(path), kind: 'file' };
  if (found.isDirectory()) throw Object.assign(new Error(`${path} is a folder`), { code: 'EISDIR' });
  if (found.isBlockDevice()) {
    throw new XpatchError('FILE_WRITE', `Cannot write ${path}. It is a disk: name a file on it.`);
  }
  if (found.isSocket()) {
    throw new XpatchError('FILE_WRITE', `Cannot write ${path}. It is a socket: name a file, or a pipe.`);
  }
  if (found.isCharacterDevice()) return { path, kind: 'device' };
  if (!found.isFile()) return { path, kind: 'pipe' };
  // A file that was deleted while it is open, as /dev/fd/3 may be, has no path to replace.
  const real = await realpath(path);
  const same = await stat(real).catch(() => undefined);
  return same?.ino === found.ino && same.dev === found.dev ? { path: real, kind: 'file' } : { path, kind: 'device' };
}

/** The name that dangling links lead to. */
async function endOfLinks(path: string): Promise<string> {
  const linked = await readlink(path).catch(() => undefined);
  return linked === undefined ? path : endOfLinks(resolve(dirname(path), linked));
}

/** To a pipe, a terminal or another device, where nothing can be taken back. One without a reader is refused: it could block. */
async function writeThrough({ path, kind }: WriteTarget, chunks: Iterable<string | Uint8Array>): Promise<void> {
  const fd = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
  // A file system call on a full pipe would hold a thread, and with it the end of the process.
  const stream = kind === 'pipe' ? new Socket({ fd, readable: false }) : createWriteStream(path, { fd });
  await pipeline(Readable.from(chunks, { objectMode: false }), stream);
}

/** Makes the entries of a folder last through a power cut, on systems where a folder can be opened. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}

/**
 * Makes a folder and its parents, so that they last through a power cut; existing ones are fine. Not by mkdir's `recursive`, which never ends if the
 * system says that a folder's child does not exist, as below /proc.
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
  // A buffer of a few MB for each of hundreds of small pictures would keep the garbage collector busy.
  const highWaterMark = Math.min(Math.max((await file.stat()).size, 1), 4 << 20);
  for await (const chunk of file.createReadStream({ signal, highWaterMark })) hash.update(chunk as Buffer);
}

/** SHA-256 of a file, hex. @throws {XpatchError} FILE_NOT_FOUND */
export async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  await hashInto(hash, path);
  return hash.digest('hex');
}
