import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { XpatchError } from '../util/errors.js';
import { hashInto, makeFolder, writeError } from '../util/files.js';
import { LOCK_PREFIX, RunLock } from '../util/run-lock.js';
import { TaskVector } from '../vectors/task-vector.js';
import { noFindings, readLines } from './lines.js';
import { configHash, type ExperimentManifest, readManifest, requireSameRun, type StoredManifest } from './manifest.js';
import { LineFile, lostError } from './result-file.js';
import { MANIFEST_FILE, RESULTS_FILE, RunFolder, requireEmpty, vectorFile } from './run-folder.js';
import { keyOf, type ResultLine, type RunStore } from './types.js';

/** What `writeFileAtomic` and the lock leave behind when their process is killed. */
const LEFTOVER = /^\.(.+\.\d+\.[0-9a-f]{8}|lock-[0-9a-f]{16})\.tmp$/;
const SUBFOLDERS = ['', 'vectors', 'tables', 'figures'];
const DELETE_IT =
  'Put back the file that was there, or delete it and start the run again: what is missing is made anew.';

/** @throws {XpatchError} FILE_WRITE for what is no folder, or one that holds something else than a run */
export async function requireRunFolder(path: string): Promise<void> {
  const names = await readdir(path).catch((cause: NodeJS.ErrnoException): string[] => {
    if (cause.code === 'ENOENT') return [];
    throw cause.code === 'ENOTDIR'
      ? new XpatchError('FILE_WRITE', `Could not write to ${path}. It is not a folder: name another one.`, { cause })
      : writeError(path, cause);
  });
  const others = names.filter((name) => !name.startsWith(LOCK_PREFIX) && !LEFTOVER.test(name));
  if (!names.includes(MANIFEST_FILE)) requireEmpty(path, others);
}

/**
 * The run of an experiment on disk. A kill at any instant loses at most the lines that were being appended; opening the folder again
 * with the same experiment, models and tasks goes on where it was. One process at a time.
 */
export class ExperimentRun extends RunFolder implements RunStore {
  /** Keys of all lines in the run. */
  readonly known = new Set<string>();
  /** What the reader should know about the state the run was found in. */
  readonly notes: string[] = [];
  /** Vectors that the run has had and lost. */
  readonly lost = new Set<string>();
  /** Those that it has. */
  private readonly vectors = new Set<string>();
  private lock: RunLock | undefined;
  private file: LineFile | undefined;

  private constructor(
    path: string,
    private stored: StoredManifest,
  ) {
    super(path);
  }

  /**
   * Makes the folder of a new run, or opens that of an earlier process.
   *
   * A complete run is not locked and takes no more lines: look at `complete`. One that has lost lines or vectors since is
   * complete no more and goes on.
   *
   * @throws {XpatchError} RUN_BUSY when another process writes it; RUN_MISMATCH for a run of another experiment, model, task file or
   *   shard; RUN_INVALID when it is damaged, or was changed after it was complete; FILE_WRITE, also when the folder holds something else
   */
  static async open(path: string, manifest: ExperimentManifest): Promise<ExperimentRun> {
    const complete = await readManifest(path);
    if (complete?.status === 'complete') {
      requireSameRun(complete, manifest, path);
      const run = new ExperimentRun(path, complete);
      await run.readKnown();
      if (await run.isWhole()) return run;
    }
    await makeFolder(path);
    const lock = await RunLock.acquire(path);
    try {
      const before = await readManifest(path); // again: another process may have ended in between
      if (before === undefined) {
        await requireRunFolder(path);
      } else {
        requireSameRun(before, manifest, path);
      }
      const sessions = [...(before?.sessions ?? []), sessionOf(manifest)];
      const { started } = before ?? manifest;
      const run = new ExperimentRun(path, {
        shards: before?.shards,
        ...manifest,
        started,
        status: 'running',
        configHash: configHash(manifest),
        sessions,
      });
      run.lock = lock;
      await run.removeLeftovers();
      const size = await run.readKnown(before?.vectors);
      if (complete?.status === 'complete')
        run.notes.unshift(
          `${path} was complete and has lost some of its files or lines: what is missing is made again.`,
        );
      const [lost] = run.lost;
      if (lost !== undefined)
        run.notes.push(`${run.lost.size} of its vectors are missing, such as ${lost}; they are made again.`);
      await run.writeManifest(run.stored);
      run.file = await LineFile.open(join(path, RESULTS_FILE), size);
      return run;
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  get manifest(): StoredManifest {
    return this.stored;
  }

  /** Whether an earlier process has finished it. */
  get complete(): boolean {
    return this.stored.status === 'complete';
  }

  async *lines(): AsyncGenerator<ResultLine> {
    for await (const { line } of readLines(this.path)) yield line;
  }

  /**
   * Lines whose query is answered already are left out: no query stands in a run twice.
   * @throws {XpatchError} FILE_WRITE; the run is then as it was before
   */
  override async append(lines: readonly ResultLine[]): Promise<void> {
    if (this.file === undefined) throw new Error(`The run ${this.path} is closed or complete.`);
    const fresh = new Map<string, ResultLine>();
    for (const line of lines) {
      const key = keyOf(line);
      if (!this.known.has(key) && !fresh.has(key)) fresh.set(key, line);
    }
    await this.file.append([...fresh.values()]);
    for (const key of fresh.keys()) this.known.add(key);
  }

  override async saveVector(name: string, vector: TaskVector): Promise<void> {
    await super.saveVector(name, vector);
    this.vectors.add(name);
  }

  loadVector(name: string): Promise<TaskVector | undefined> {
    return loadRunVector(this.path, name);
  }

  /**
   * The last step, after the report: writes down the hashes of lines and vectors and that the run is complete, and closes it.
   * @param more what else the manifest should say
   * @throws {XpatchError} RUN_INVALID when it has another number of lines than was planned, or as `requireWhole`; FILE_WRITE
   */
  async finish(more: Readonly<Record<string, unknown>> = {}): Promise<void> {
    const finished = new Date().toISOString();
    const lines = this.known.size;
    const planned = this.stored.plan.reduce((sum, { count }) => sum + count, 0);
    if (lines !== planned) {
      const problem = `has ${lines} lines, and ${planned} were planned`;
      throw new XpatchError('RUN_INVALID', `${join(this.path, RESULTS_FILE)} ${problem}. ${DELETE_IT}`);
    }
    await this.requireWhole();
    const vectors = await hashVectors(this.path);
    const results = await hashResults(this.path);
    this.stored = { ...this.stored, ...more, status: 'complete', finished, lines, results, vectors };
    await this.writeManifest(this.stored);
    await this.close();
  }

  /**
   * Whether the lines and vectors of the run stand on the disk as they were written: somebody may have deleted, replaced or cut them off.
   * @throws {XpatchError} RUN_INVALID
   */
  override async requireWhole(): Promise<void> {
    await this.file?.requireWhole();
    const lines = new Set<string>();
    for await (const { key } of readLines(this.path)) lines.add(key);
    const file = join(this.path, RESULTS_FILE);
    const gone = [...this.known].filter((key) => !lines.has(key)).length;
    if (gone > 0) throw lostError(file, `lost ${gone} of ${this.known.size} lines`);
    for (const name of this.vectors) {
      const vector = join(this.path, vectorFile(name));
      if (!existsSync(vector)) throw lostError(vector, 'was deleted');
    }
  }

  /** Lets other processes at the run. Nothing is lost without it: the end of the process does the same. */
  async close(): Promise<void> {
    const { file, lock } = this;
    this.file = undefined;
    this.lock = undefined;
    // Without it nobody could go on with what is left of a run whose folder was cleared.
    const cleared = lock && existsSync(this.path) && !existsSync(join(this.path, MANIFEST_FILE));
    if (cleared) await this.writeManifest(this.stored).catch(() => undefined);
    await file?.close().catch(() => undefined);
    lock?.release();
  }

  /** `close()`, at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Whether all is there that a complete run records. @throws {XpatchError} RUN_INVALID when something is not what it was */
  private async isWhole(): Promise<boolean> {
    const files = await changedFiles(this.path, this.stored);
    const { lines = 0 } = this.stored;
    const changed = files.find((file) =>
      file === RESULTS_FILE && this.known.size < lines ? false : existsSync(join(this.path, file)),
    );
    if (changed === undefined) return files.length === 0;
    throw new XpatchError('RUN_INVALID', `${join(this.path, changed)} was changed after the run. ${DELETE_IT}`);
  }

  /**
   * @param recorded vectors of a run that was complete
   * @returns bytes of the whole lines
   */
  private async readKnown(recorded?: StoredManifest['vectors']): Promise<number> {
    const findings = noFindings();
    const vectors = new Set(Object.keys(recorded ?? {}));
    for await (const { key, line } of readLines(this.path, findings)) {
      this.known.add(key);
      if (line.vector !== undefined) vectors.add(line.vector);
    }
    for (const name of vectors) {
      const there = existsSync(join(this.path, vectorFile(name)));
      (there ? this.vectors : this.lost).add(name);
    }
    const { size, torn, repeated } = findings;
    if (torn > 0)
      this.notes.push(`1 line (${torn} bytes) was torn when the run was stopped; its query is asked again.`);
    if (repeated > 0) this.notes.push(`${repeated} lines stand twice in ${RESULTS_FILE}; each counts once.`);
    return size;
  }

  private async removeLeftovers(): Promise<void> {
    for (const folder of SUBFOLDERS) {
      const names = await readdir(join(this.path, folder)).catch(() => []);
      for (const name of names)
        if (LEFTOVER.test(name)) await unlink(join(this.path, folder, name)).catch(() => undefined);
    }
  }
}

/** What may differ between the processes that worked on a run. */
function sessionOf(manifest: ExperimentManifest): Record<string, unknown> {
  const { started, command, xpatch, llamaCpp, node, platform, devices, context } = manifest;
  return { started, command, xpatch, llamaCpp, node, platform, devices, context };
}

/** A vector of a run; undefined when it has none of this name. @throws {XpatchError} VECTOR_INVALID when its file is damaged */
export async function loadRunVector(path: string, name: string): Promise<TaskVector | undefined> {
  const file = join(path, vectorFile(name));
  if (!existsSync(file)) return undefined;
  return TaskVector.load(file).catch((cause) => {
    if (!(cause instanceof XpatchError && cause.code === 'VECTOR_INVALID')) throw cause;
    const message = `${file} is damaged. Delete it and start the run again: it is made anew.`;
    throw new XpatchError('VECTOR_INVALID', message, { cause });
  });
}

/** Files of lines and vectors that are not those that the manifest of a complete run records, or are missing. */
export async function changedFiles(path: string, { results, vectors: recorded }: StoredManifest): Promise<string[]> {
  const vectors = recorded ?? {};
  const there = await hashVectors(path);
  const names = [...new Set([...Object.keys(vectors), ...Object.keys(there)])];
  return [
    ...(results === (await hashResults(path)) ? [] : [RESULTS_FILE]),
    ...names.filter((name) => vectors[name] !== there[name]).map(vectorFile),
  ];
}

/** SHA-256 of the file of lines; undefined when there is none. */
export async function hashResults(path: string): Promise<string | undefined> {
  const file = join(path, RESULTS_FILE);
  return existsSync(file) ? hashOf(file) : undefined;
}

async function hashOf(file: string): Promise<string> {
  const hash = createHash('sha256');
  await hashInto(hash, file);
  return hash.digest('hex');
}

/** SHA-256 of every file of vectors/, by the name of the vector. */
export async function hashVectors(path: string): Promise<Record<string, string>> {
  const names = (await readdir(join(path, 'vectors')).catch(() => []))
    .filter((name) => name.endsWith('.safetensors'))
    .map((name) => name.slice(0, -'.safetensors'.length))
    .sort();
  const hashes: Record<string, string> = {};
  for (const name of names) hashes[name] = await hashOf(join(path, vectorFile(name)));
  return hashes;
}
