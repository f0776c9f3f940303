import { constants, createReadStream, fstatSync, statSync } from 'node:fs';
import { access, type FileHandle, mkdtemp, open, realpath, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve, sep } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { XpatchError } from '../util/errors.js';
import { findTarget, type WriteTarget, writeError } from '../util/files.js';
import { replacesInput, reserveOutput } from '../util/read-file.js';
import { usageError } from './errors.js';
import type { Terminal } from './terminal.js';

/** Where a command writes its file: checked before the work, written after it. */
interface OutputFile extends AsyncDisposable {
  /** What to write. */
  readonly path: string;
  /** Its name in messages. */
  readonly name: string;
  /** What relative paths in it start from. */
  readonly folder: string;
  /** Called when the file has been written. */
  deliver(): Promise<void>;
}

/** Between two checks for a reader of a pipe. */
const LOOK_MS = 100;

/**
 * Checks, before the long work, that a result can be written to `path` and would not replace something it is made from.
 * `-`, or whatever the standard output goes to, means the standard output: messages then go to stderr.
 * A pipe is waited for until somebody reads it.
 * @param inputs files that the command has read, or is known to read: of any other that it would replace, reading it is refused
 * @param report folder of a report that the command makes too
 * @throws {XpatchError} FILE_WRITE, INVALID_ARGUMENT, ABORTED
 */
export async function openOutput(
  path: string,
  terminal: Terminal,
  { json, inputs, report }: { json: boolean; inputs: readonly (string | undefined)[]; report?: string | undefined },
): Promise<OutputFile> {
  if (path === '-' || isStdout(path, terminal)) return toStdout(terminal, json);
  await requireOutside(report, path);
  const { kind, path: real } = await requireWritable(path, inputs);
  const reader = await (kind === 'pipe' ? waitForReader(path, terminal) : undefined);
  const reserved = kind === 'file' ? reserveOutput(real, path) : undefined;
  return {
    path,
    name: path,
    folder: kind === 'file' ? dirname(resolve(path)) : process.cwd(),
    deliver: async () => undefined,
    // Readers see the end once the last writer closes it.
    [Symbol.asyncDispose]: async () => {
      reserved?.[Symbol.dispose]();
      await reader?.close();
    },
  };
}

/** A report takes an empty folder: nothing else may be written at or below it. @throws {XpatchError} FILE_WRITE */
export async function requireOutside(report: string | undefined, path: string): Promise<void> {
  if (report === undefined) return;
  const [folder, real] = [await realOf(report), await realOf(path)];
  if (real !== folder && !real.startsWith(join(folder, sep))) return;
  const why = `The report's folder ${report} holds nothing else: name a place outside of it.`;
  throw new XpatchError('FILE_WRITE', `Cannot write ${path}. ${why}`);
}

/** Without symbolic links, as far as it exists. */
async function realOf(path: string): Promise<string> {
  const whole = resolve(path);
  const real = await realpath(whole).catch(() => undefined);
  return real ?? (dirname(whole) === whole ? whole : join(await realOf(dirname(whole)), basename(whole)));
}

function isStdout(path: string, { io }: Terminal): boolean {
  const { fd } = io.stdout as { fd?: number };
  if (fd === undefined || path === '') return false;
  try {
    const [out, named] = [fstatSync(fd), statSync(path)];
    return named.ino === out.ino && named.dev === out.dev;
  } catch {
    return false; // errors in the name are found when it is checked as a file
  }
}

async function toStdout(terminal: Terminal, json: boolean): Promise<OutputFile> {
  if (json) throw usageError('--json prints to standard output, where the file would go: name a file.');
  if (terminal.out.isTTY)
    throw usageError('The file would go to the terminal. Redirect it to a file (>) or a program (|).');
  terminal.resultsToStderr();
  const folder = await mkdtemp(join(tmpdir(), 'xpatch-'));
  const path = join(folder, 'output');
  return {
    path,
    name: 'the standard output',
    folder: process.cwd(),
    deliver: () => terminal.out.file(createReadStream(path)),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

/** Keeps a pipe open that somebody reads. */
async function waitForReader(path: string, { signal }: Terminal): Promise<FileHandle> {
  for (;;) {
    try {
      return await open(path, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENXIO') throw writeError(path, error);
    }
    await sleep(LOOK_MS, undefined, { signal });
  }
}

async function requireWritable(path: string, inputs: readonly (string | undefined)[]): Promise<WriteTarget> {
  const fail = (why: string, cause?: unknown) =>
    new XpatchError('FILE_WRITE', `Cannot write ${path}. ${why}`, { cause });
  if (path === '') throw usageError('The file to write has no name.');
  const existing = await stat(path).catch(() => undefined);
  if (existing?.isDirectory()) throw fail('It is a folder: name a file inside it.');
  const target = await findTarget(path).catch((cause: unknown) => {
    throw writeError(path, cause);
  });
  if (target.kind !== 'file') return target;
  const folder = dirname(resolve(target.path));
  const folderStat = await stat(folder).catch((cause: unknown) => {
    throw fail(`The folder ${folder} does not exist: create it, or name another.`, cause);
  });
  if (!folderStat.isDirectory()) throw fail(`${folder} is not a folder: name another.`);
  await access(folder, constants.W_OK | constants.X_OK).catch((cause: unknown) => {
    throw fail(`No permission to write in ${folder}: name a folder you may write to.`, cause);
  });
  for (const input of inputs) {
    const same = input !== undefined && existing && (await realpath(input).catch(() => undefined)) === target.path;
    if (same) throw replacesInput(path);
  }
  return target;
}
