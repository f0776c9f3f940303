import { constants } from 'node:fs';
import { access, realpath, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { XpatchError } from '../util/errors.js';
import { usageError } from './errors.js';

/**
 * Checks, before the long work, that a result can be written to `path` and would not replace something it is made from.
 * @param inputs files that the command reads
 * @throws {XpatchError} FILE_WRITE, INVALID_ARGUMENT
 */
export async function requireWritable(path: string, inputs: readonly (string | undefined)[]): Promise<void> {
  const fail = (why: string, cause?: unknown) =>
    new XpatchError('FILE_WRITE', `Cannot write ${path}. ${why}`, { cause });
  if (path === '') throw usageError('The file to write has no name.');
  const folder = dirname(resolve(path));
  const folderStat = await stat(folder).catch((cause: unknown) => {
    throw fail(`The folder ${folder} does not exist: create it, or name another one.`, cause);
  });
  if (!folderStat.isDirectory()) throw fail(`${folder} is not a folder: name another one.`);
  await access(folder, constants.W_OK | constants.X_OK).catch((cause: unknown) => {
    throw fail(`No permission to write in ${folder}: name a folder you may write to.`, cause);
  });
  const existing = await stat(path).catch(() => undefined);
  if (existing === undefined) return;
  if (existing.isDirectory()) throw fail('It is a folder: name a file inside it.');
  const target = await realpath(path);
  for (const input of inputs) {
    const same = input !== undefined && (await realpath(input).catch(() => undefined)) === target;
    if (same) throw fail('The command reads this file: name another one for the result.');
  }
}
