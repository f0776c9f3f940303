import { existsSync } from 'node:fs';
import { readdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { counted } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import { makeFolder, writeError } from '../util/files.js';
import { LOCK_PREFIX, RunLock } from '../util/run-lock.js';
import type { TaskVector } from '../vectors/task-vector.js';
import { noFindings, readLines } from './lines.js';
import {
  configHash,
  MANIFEST_FILE,
  type Manifest,
  plannedLines,
  type RunRecord,
  readManifest,
  requireSameRun,
} from './manifest.js';
import { LineFile, lostError } from './result-file.js';
import {
  changedFiles,
  hashResults,
  hashVectors,
  loadRunVector,
  loadSaved,
  placeIn,
  RESULTS_FILE,
  vectorFile,
  writeInto,
} from './run-files.js';
import { keyOf, type ResultLine, type RunLine, type RunStore, type Saved } from './types.js';

/** What `writeFileAtomic` and the lock leave behind if their process is killed. */
const LEFTOVER = /^\.(.+\.\d+\.[0-9a-f]{8}|lock-[0-9a-f]{16})\.tmp$/;
const SUBFOLDERS = ['', 'vectors', 'tables', 'figures'];
const DELETE_IT = 'Put back the original file, or delete it and start the run again: what is missing is restored.';

/**
 * A run on disk: `manifest.json`, `results.jsonl` (one line per result), `vectors/`, `tables/`, `figures/`, `report.html`. Whole files
 * are written atomically, lines are appended as they come; either is on disk when the promise resolves. A kill at any instant
 * loses at most the lines that were being appended; opening the folder again for the same run resumes it. One process
 * at a time.
 */
export class RunFolder<Line extends RunLine = ResultLine> implements RunStore<Line> {
  /** Keys of all lines in the run. */
  readonly known = new Set<string>();
  /** What the reader should know about the state in which the run was found. */
  readonly notes: string[] = [];
  /** Called when lines, or a vector, are on disk. */
  onSaved: (() => void) | undefined;
  /** Vectors that the run had and lost. */
  readonly lost = new Set<string>();
  /** Those that it has. */
  private readonly vectors = new Set<string>();
  private lock: RunLock | undefined;
  private file: LineFile | undefined;

  private constructor(
    readonly path: string,
    private stored: RunRecord<object>,
  ) {}

  /**
   * Makes the folder of a new run, or opens that of an earlier process.
   *
   * A complete run is not locked and takes no more lines: see `complete`. One that has lost lines or vectors since is
   * no longer complete and resumes.
   *
   * @throws {XpatchError} RUN_BUSY if another process is writing it; RUN_MISMATCH for a run with other options, another model, task file or
   *   shard; RUN_INVALID if it is damaged, or was changed after it was complete; FILE_WRITE, also if the folder holds something else
   */
  static async open<Line extends RunLine = ResultLine>(
    path: string,
    manifest: Manifest<object>,
  ): Promise<RunFolder<Line>> {
    const complete = await readManifest(path);
    if (complete?.status === 'complete') {
      requireSameRun(complete, manifest, path);
      const run = new RunFolder<Line>(path, complete);
      await run.readKnown();
      if (await run.isWhole()) return run;
    }
    await makeFolder(path);
    const lock = await RunLock.acquire(path);
    try {
      const before = await readManifest(path); // again: another process may have ended in between
      if (before !== undefined) requireSameRun(before, manifest, path);
      else await requireRunFolder(path);
      const sessions = [...(before?.sessions ?? []), sessionOf(manifest)];
      const { started } = before ?? manifest;
      const run = new RunFolder<Line>(path, {
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
        run.notes.unshift(`${path} was complete and has lost some of its files or lines: what is missing is restored.`);
      const [lost] = run.lost;
      if (lost !== undefined)
        run.notes.push(`${run.lost.size} of its vectors are missing, such as ${lost}; they are restored.`);
      await run.writeManifest();
      if (plannedLines(manifest) > 0) run.file = await LineFile.open(join(path, RESULTS_FILE), size);
      return run;
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  /** Makes the folder of a run that cannot be resumed, such as a page. @throws {XpatchError} FILE_WRITE if it is not empty */
  static async create(path: string, manifest: Manifest<object>): Promise<RunFolder> {
    await requireEmpty(path);
    return RunFolder.open(path, manifest);
  }

  get manifest(): RunRecord<object> {
    return this.stored;
  }

  /** Whether an earlier process has finished it. */
  get complete(): boolean {
    return this.stored.status === 'complete';
  }

  async *lines(): AsyncGenerator<Line> {
    for await (const { line } of readLines<Line>(this.path)) yield line;
  }

  /**
   * Appends to `results.jsonl`. Lines whose query is already answered are left out: no query is in a run twice.
   * @throws {XpatchError} FILE_WRITE; the run is then as it was before
   */
  async append(lines: readonly Line[]): Promise<void> {
    if (this.file === undefined) throw new Error(`The run ${this.path} is closed or complete.`);
    const fresh = new Map<string, Line>();
    for (const line of lines) {
      const key = keyOf(line);
      if (!this.known.has(key) && !fresh.has(key)) fresh.set(key, line);
    }
    await this.file.append([...fresh.values()]);
    for (const key of fresh.keys()) this.known.add(key);
    this.onSaved?.();
  }

  /**
   * @param name path inside the folder
   * @param content whole, or in chunks that are written one after the other
   * @throws {XpatchError} FILE_WRITE
   */
  async write(name: string, content: string | Uint8Array | Iterable<Uint8Array>): Promise<void> {
    await writeInto(this.path, name, content);
  }

  /** @throws {XpatchError} FILE_WRITE; INVALID_ARGUMENT for a name that cannot be a file name */
  async saveVector(name: string, vector: Saved): Promise<void> {
    await vector.save(await placeIn(this.path, vectorFile(name)));
    this.vectors.add(name);
    this.onSaved?.();
  }

  loadVector(name: string): Promise<TaskVector | undefined> {
    return loadRunVector(this.path, name);
  }

  load<T extends Saved>(name: string, open: (path: string) => Promise<T>): Promise<T | undefined> {
    return loadSaved(this.path, name, open);
  }

  /**
   * The last step, after the report: records the hashes of lines and vectors and that the run is complete, and closes it.
   * @param more what else the manifest should say
   * @throws {XpatchError} RUN_INVALID if it does not have the planned number of lines, or as `requireWhole`; FILE_WRITE
   */
  async finish(more: Readonly<Record<string, unknown>> = {}): Promise<void> {
    const finished = new Date().toISOString();
    const lines = this.known.size;
    const planned = plannedLines(this.stored);
    if (lines !== planned) {
      const problem = `has ${lines} lines, but ${planned} were planned`;
      throw new XpatchError('RUN_INVALID', `${join(this.path, RESULTS_FILE)} ${problem}. ${DELETE_IT}`);
    }
    await this.requireWhole();
    const vectors = await hashVectors(this.path);
    const results = await hashResults(this.path);
    this.stored = { ...this.stored, ...more, status: 'complete', finished, lines, results, vectors };
    await this.writeManifest();
    await this.close();
  }

  /**
   * Whether the run is on disk as it was written: somebody may have deleted, replaced or cut off its files.
   * @throws {XpatchError} RUN_INVALID
   */
  async requireWhole(): Promise<void> {
    const manifest = join(this.path, MANIFEST_FILE);
    if (!existsSync(manifest)) throw lostError(manifest, 'was deleted');
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

  /** Releases the run for other processes. Nothing is lost without it: the end of the process does the same. */
  async close(): Promise<void> {
    const { file, lock } = this;
    this.file = undefined;
    this.lock = undefined;
    // Without it nobody could resume what is left of a run whose folder was cleared.
    const cleared = lock && existsSync(this.path) && !existsSync(join(this.path, MANIFEST_FILE));
    if (cleared) await this.writeManifest().catch(() => undefined);
    await file?.close().catch(() => undefined);
    lock?.release();
  }

  /** `close()`, at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private async writeManifest(): Promise<void> {
    await this.write(MANIFEST_FILE, `${JSON.stringify(this.stored, null, 2)}\n`);
  }

  /** Whether everything that a complete run records is there. @throws {XpatchError} RUN_INVALID if something has changed */
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
  private async readKnown(recorded?: RunRecord['vectors']): Promise<number> {
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
      this.notes.push(`1 line (${counted(torn, 'byte')}) was torn when the run was stopped; its query is asked again.`);
    if (repeated > 0)
      this.notes.push(`${counted(repeated, 'line is', 'lines are')} in ${RESULTS_FILE} twice and counted once.`);
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
function sessionOf(manifest: Manifest<object>): Record<string, unknown> {
  const { started, command, xpatch, llamaCpp, node, platform, devices, context } = manifest;
  return { started, command, xpatch, llamaCpp, node, platform, devices, context };
}

/** @throws {XpatchError} FILE_WRITE for what is not a folder, or a folder with anything but what a killed process left */
export async function requireEmpty(path: string): Promise<void> {
  const names = await readdir(path).catch((cause: NodeJS.ErrnoException): string[] => {
    if (cause.code === 'ENOENT') return [];
    throw cause.code === 'ENOTDIR'
      ? new XpatchError('FILE_WRITE', `Could not write to ${path}. It is not a folder: name another.`, { cause })
      : writeError(path, cause);
  });
  const found = names.filter((name) => !name.startsWith(LOCK_PREFIX) && !LEFTOVER.test(name)).slice(0, 3);
  if (found.length === 0) return;
  const message = `The run folder ${path} is not empty (${found.join(', ')}). Name another, or remove it.`;
  throw new XpatchError('FILE_WRITE', message);
}

/** The same, of something other than a run. */
export async function requireRunFolder(path: string): Promise<void> {
  if (!existsSync(join(path, MANIFEST_FILE))) await requireEmpty(path);
}
