// What is in the folder of a run, and the hashes that identify it.
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { XpatchError } from '../util/errors.js';
import { hashOf, makeFolder, writeFileAtomic } from '../util/files.js';
import { TaskVector } from '../vectors/task-vector.js';
import type { RunRecord } from './manifest.js';
import { lostError } from './result-file.js';
import type { Saved } from './types.js';

export const RESULTS_FILE = 'results.jsonl';

/** Where a run keeps a vector. @throws {XpatchError} INVALID_ARGUMENT for a name that is not a file name */
export function vectorFile(name: string): string {
  if (/^[^./\\:\0][^/\\:\0]*$/.test(name)) return `vectors/${name}.safetensors`;
  throw new XpatchError('INVALID_ARGUMENT', `${JSON.stringify(name)} cannot name a vector: it must be a file name.`);
}

/** The path of a file of a run, whose folder then exists. @throws {XpatchError} RUN_INVALID if the run is gone; FILE_WRITE */
export async function placeIn(path: string, name: string): Promise<string> {
  const file = join(path, name);
  if (!existsSync(path)) throw lostError(path, 'was deleted');
  await makeFolder(dirname(file));
  return file;
}

/** Writes a whole file of a run, atomically. @throws {XpatchError} as `placeIn` */
export async function writeInto(
  path: string,
  name: string,
  content: string | Uint8Array | Iterable<Uint8Array>,
): Promise<void> {
  await writeFileAtomic(await placeIn(path, name), content);
}

/** A vector of a run; undefined if it has none of this name. @throws {XpatchError} VECTOR_INVALID if its file is damaged */
export function loadRunVector(path: string, name: string): Promise<TaskVector | undefined> {
  return loadSaved(path, name, (file) => TaskVector.load(file));
}

/** The same for anything a run keeps among its vectors. @param open reads such a file */
export async function loadSaved<T extends Saved>(
  path: string,
  name: string,
  open: (path: string) => Promise<T>,
): Promise<T | undefined> {
  const file = join(path, vectorFile(name));
  if (!existsSync(file)) return undefined;
  return open(file).catch((cause) => {
    if (!(cause instanceof XpatchError && /^(VECTOR|LENS|SAFETENSORS)_INVALID$/.test(cause.code))) throw cause;
    const message = `${file} is damaged. Delete it and start the run again to restore it.`;
    throw new XpatchError('VECTOR_INVALID', message, { cause });
  });
}

/** Files of lines and vectors that differ from what the manifest of a complete run records, or are missing. */
export async function changedFiles(
  path: string,
  { results, vectors: recorded }: Pick<RunRecord, 'results' | 'vectors'>,
): Promise<string[]> {
  const vectors = recorded ?? {};
  const there = await hashVectors(path);
  const names = [...new Set([...Object.keys(vectors), ...Object.keys(there)])];
  return [
    ...(results === (await hashResults(path)) ? [] : [RESULTS_FILE]),
    ...names.filter((name) => vectors[name] !== there[name]).map(vectorFile),
  ];
}

/** @throws {XpatchError} RUN_INVALID unless the run is complete and what it was when it became so */
export async function requireComplete(path: string, manifest: RunRecord): Promise<void> {
  const invalid = (problem: string) => new XpatchError('RUN_INVALID', `${path} ${problem}`);
  if (manifest.status !== 'complete') throw invalid('is not complete. Start its command again to resume it.');
  const [changed] = await changedFiles(path, manifest);
  if (changed === undefined) return;
  throw invalid(
    `was changed after it was complete: see ${changed}. Start its command again, which restores what is lost.`,
  );
}

/** SHA-256 of the file of lines; undefined if there is none. */
export async function hashResults(path: string): Promise<string | undefined> {
  const file = join(path, RESULTS_FILE);
  return existsSync(file) ? hashOf(file) : undefined;
}

/** SHA-256 of every file in vectors/, by the name of the vector. */
export async function hashVectors(path: string): Promise<Record<string, string>> {
  const names = (await readdir(join(path, 'vectors')).catch(() => []))
    .filter((name) => name.endsWith('.safetensors'))
    .map((name) => name.slice(0, -'.safetensors'.length))
    .sort();
  const hashes: Record<string, string> = {};
  for (const name of names) hashes[name] = await hashOf(join(path, vectorFile(name)));
  return hashes;
}
