import { createHash } from 'node:crypto';
import { XpatchError } from '../util/errors.js';
import { hashInto } from '../util/files.js';
import { systemReason } from '../util/system-reason.js';
import type { Task } from './task.js';

/**
 * SHA-256, hex, over the names and contents of a task's pictures: alike on every machine that has them. Only of a task that was
 * loaded with pictures. Files are read in pieces.
 *
 * @throws {XpatchError} FILE_NOT_FOUND; ABORTED
 */
export async function hashPictures({ pictures }: Pick<Task, 'pictures'>, signal?: AbortSignal): Promise<string> {
  const whole = createHash('sha256');
  for (const [path, name] of [...(pictures ?? [])].sort(([, a], [, b]) => (a < b ? -1 : 1))) {
    whole.update(`${JSON.stringify(name)} ${await hashFile(path, signal)}\n`);
  }
  return whole.digest('hex');
}

async function hashFile(path: string, signal: AbortSignal | undefined): Promise<string> {
  const hash = createHash('sha256');
  try {
    await hashInto(hash, path, signal);
  } catch (cause) {
    if (signal?.aborted) throw new XpatchError('ABORTED', 'Hashing the pictures was aborted.', { cause });
    const message = `The picture ${path} cannot be read: ${systemReason(cause)}. Put it back, or correct the task.`;
    throw new XpatchError('FILE_NOT_FOUND', message, { cause });
  }
  return hash.digest('hex');
}
