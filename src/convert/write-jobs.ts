import { createHash } from 'node:crypto';
import { rename, rm, stat, statfs, truncate, writeFile } from 'node:fs/promises';
import { basename, dirname, resolve } from 'node:path';
import { checkModelFile } from '../gguf/gguf-check.js';
import type { GgufLayout } from '../gguf/gguf-writer.js';
import { checkProjectorFile } from '../gguf/mmproj-check.js';
import { readQkNorm } from '../model/qk-norm.js';
import type { Progress } from '../model/types.js';
import { JsonTokenizer } from '../prompt/tokenizer.js';
import { gigabytes } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import { makeFolder, syncFolder, writeError, writeFileAtomic } from '../util/files.js';
import { parseJson } from '../util/json.js';
import { readWhole } from '../util/read-file.js';
import { RunLock } from '../util/run-lock.js';
import type { Checkpoint } from './checkpoint.js';
import type { FilePlan } from './plan.js';
import { writePlan } from './write-plan.js';

/** A file to write: `part` becomes `path` when all files of a conversion are complete. */
export interface Job extends FilePlan {
  layout: GgufLayout;
  path: string;
  part: string;
}

/** What an interrupted conversion leaves for the next run. */
interface State {
  /** Of everything that the files depend on. */
  fingerprint: string;
  /** By file, bytes that are on the disk for good. */
  written: Record<string, number>;
}

interface WriteOptions {
  threads: number;
  signal: AbortSignal | undefined;
  /** `done` and `total` in bytes of the files. */
  onProgress: ((progress: Progress) => void) | undefined;
}

/**
 * Writes the files of a conversion into one folder, which is locked meanwhile, going on where an earlier run ended.
 * @param statePath where what is done is kept until all is
 * @returns bytes that earlier runs had written
 * @throws {XpatchError} as `convertCheckpoint`
 */
export async function writeJobs(
  checkpoint: Checkpoint,
  jobs: readonly Job[],
  statePath: string,
  options: WriteOptions,
): Promise<number> {
  const fingerprint = await fingerprintOf(checkpoint, jobs);
  const folder = dirname(statePath);
  await makeFolder(folder);
  using _lock = await RunLock.acquire(folder, 'The folder');
  const state = await readState(statePath, fingerprint);
  await requireFree(jobs, state !== undefined);
  return await write(jobs, statePath, state ?? { fingerprint, written: {} }, options);
}

/** Two runs with the same fingerprint write the same bytes. */
async function fingerprintOf(checkpoint: Checkpoint, jobs: readonly Job[]): Promise<string> {
  const hash = createHash('sha256');
  for (const { layout, tensors } of jobs) {
    hash.update(layout.header);
    for (const { source } of tensors) hash.update(`${source.info.name}\0${source.info.offset}\0`);
  }
  for (const { path } of checkpoint.shards) {
    const { size, mtimeMs } = await stat(path);
    hash.update(`${resolve(path)}\0${size}\0${mtimeMs}\0`);
  }
  return hash.digest('hex');
}

/** What an earlier run left, if it was of the same conversion. */
async function readState(path: string, fingerprint: string): Promise<State | undefined> {
  const found = await readWhole(path, { what: 'the state', maxBytes: 64 << 20 }).catch(() => undefined);
  if (found === undefined) return undefined;
  try {
    const state = parseJson(found) as State;
    return state.fingerprint === fingerprint && typeof state.written === 'object' ? state : undefined;
  } catch {
    return undefined; // not ours: it is written over
  }
}

async function sizeOf(path: string): Promise<{ size: number; allocated: number } | undefined> {
  return stat(path).then(
    ({ size, blocks }) => ({ size, allocated: Math.min(size, (blocks ?? 0) * 512) }),
    () => undefined,
  );
}

/** Nothing that is there is written over, and there is room for all. */
async function requireFree(jobs: readonly Job[], resumed: boolean): Promise<void> {
  let needed = 0;
  for (const { path, part, layout } of jobs) {
    const existing = await sizeOf(path);
    if (existing && !(resumed && existing.size === layout.size)) {
      throw new XpatchError('FILE_WRITE', `There is already a ${path}. Remove it, or name another folder.`);
    }
    if (!existing) needed += Math.max(0, layout.size - ((await sizeOf(part))?.allocated ?? 0));
  }
  const folder = dirname((jobs[0] as Job).path);
  const disk = await statfs(folder).catch(() => undefined);
  const free = disk && disk.bavail * disk.bsize;
  if (free !== undefined && free < needed) {
    throw new XpatchError(
      'FILE_WRITE',
      `The conversion writes ${gigabytes(needed)}, but ${folder} has room for ${gigabytes(free)}. Free some space, name a ` +
        'folder on another disk, or use a smaller type.',
    );
  }
}

async function write(
  jobs: readonly Job[],
  statePath: string,
  state: State,
  { threads, signal, onProgress }: WriteOptions,
): Promise<number> {
  const total = jobs.reduce((sum, { layout }) => sum + layout.size, 0);
  const from = await Promise.all(jobs.map((job) => writtenBefore(job, state)));
  const fresh = jobs.filter((_, i) => from[i] === 0);
  // Before their files are emptied: a count must never outlive what it counts.
  for (const { part } of fresh) state.written[basename(part)] = 0;
  await saveState(statePath, state);
  try {
    for (const job of fresh) await begin(job);
  } catch (error) {
    for (const path of [statePath, ...fresh.map(({ part }) => part)]) await rm(path, { force: true });
    throw error;
  }
  let before = 0;
  for (const [i, job] of jobs.entries()) {
    const { part, layout } = job;
    const start = from[i] as number;
    if (start < layout.size) {
      const onDurable = (bytes: number) => {
        state.written[basename(part)] = bytes;
        return saveState(statePath, state);
      };
      const onWritten = (bytes: number) => onProgress?.({ done: before + bytes, total });
      await writePlan(part, job, layout, start, threads, { signal, onWritten, onDurable });
      await onDurable(layout.size);
    }
    before += layout.size;
    onProgress?.({ done: before, total });
  }
  for (const { path, part } of jobs) {
    if (!(await sizeOf(part))) continue; // renamed by a run that ended before it could remove the state
    await rename(part, path).catch((cause: unknown) => {
      throw writeError(path, cause);
    });
    await syncFolder(dirname(path));
  }
  await rm(statePath, { force: true });
  return from.reduce((sum, bytes) => sum + bytes, 0);
}

/** Bytes of a file that earlier runs have written for good. */
async function writtenBefore({ path, part, layout }: Job, state: State): Promise<number> {
  const there = await sizeOf(part);
  if (!there) return (await sizeOf(path)) ? layout.size : 0;
  const written = state.written[basename(part)];
  return there.size === layout.size && Number.isSafeInteger(written) ? (written as number) : 0;
}

/**
 * Makes a partial file with its header, its data still missing, and checks that the runtime would take what the header says: not only
 * after an hour of converting.
 */
async function begin({ part, kind, layout }: Job): Promise<void> {
  await writeFile(part, layout.header)
    .then(() => truncate(part, layout.size))
    .catch((cause: unknown) => {
      throw writeError(part, cause);
    });
  if (kind === 'mmproj') {
    checkProjectorFile(part);
    return;
  }
  const header = checkModelFile(part);
  readQkNorm(header, part);
  JsonTokenizer.of(header, part);
}

async function saveState(path: string, state: State): Promise<void> {
  await writeFileAtomic(path, JSON.stringify(state));
}
