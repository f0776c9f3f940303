import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, readFile, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { makeFolder } from '../../files.js';
import { LOCK_PREFIX, RunLock } from '../../run-lock.js';
import { TaskVector } from '../../vectors/task-vector.js';
import { LineFile } from '../result-file.js';
import { RESULTS_FILE, RunFolder, requireEmpty, vectorFile } from '../run-folder.js';
import { noFindings, readLines } from './lines.js';
import { configHash, type ExperimentManifest, readManifest, requireSameRun, type StoredManifest } from './manifest.js';
import { keyOf, type ResultLine, type RunStore } from './types.js';

/** What `writeFileAtomic` and the lock leave behind when their process is killed. */
const LEFTOVER = /^\.(.+\.\d+\.[0-9a-f]{8}|lock-[0-9a-f]{16})\.tmp$/;
const SUBFOLDERS = ['', 'vectors', 'tables', 'figures'];

/**
 * The run of an experiment on disk. A kill at any instant loses at most the lines that were being appended; opening the folder again
 * with the same experiment, models and tasks goes on where it was. One process at a time.
 */
export class ExperimentRun extends RunFolder implements RunStore {
  /** Keys of all lines in the run. */
  readonly known = new Set<string>();
  /** What the reader should know about the state the run was found in. */
  readonly notes: string[] = [];
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
   * A complete run is not locked and takes no more lines: look at `complete`.
   *
   * @throws {XpatchError} RUN_BUSY when another process writes it; RUN_MISMATCH for a run of another experiment, model, task file or
   *   shard; RUN_INVALID when it is damaged; FILE_WRITE, also when the folder holds something else
   */
  static async open(path: string, manifest: ExperimentManifest): Promise<ExperimentRun> {
    const complete = await readManifest(path);
    if (complete?.status === 'complete') {
      requireSameRun(complete, manifest, path);
      const run = new ExperimentRun(path, complete);
      await run.readKnown();
      return run;
    }
    await makeFolder(path);
    const lock = await RunLock.acquire(path);
    try {
      const before = await readManifest(path); // again: another process may have ended in between
      if (before === undefined) {
        const names = await readdir(path);
        requireEmpty(
          path,
          names.filter((name) => !name.startsWith(LOCK_PREFIX) && !LEFTOVER.test(name)),
        );
      } else {
        requireSameRun(before, manifest, path);
      }
      const sessions = [...(before?.sessions ?? []), sessionOf(manifest)];
      const { started } = before ?? manifest;
      const run = new ExperimentRun(path, {
        ...manifest,
        started,
        status: 'running',
        configHash: configHash(manifest),
        sessions,
      });
      run.lock = lock;
      await run.removeLeftovers();
      const size = await run.readKnown();
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

  loadVector(name: string): Promise<TaskVector | undefined> {
    return loadRunVector(this.path, name);
  }

  /**
   * The last step, after the report: writes down the hashes of lines and vectors and that the run is complete, and closes it.
   * @param more what else the manifest should say
   * @throws {XpatchError} FILE_WRITE
   */
  async finish(more: Readonly<Record<string, unknown>> = {}): Promise<void> {
    const finished = new Date().toISOString();
    const vectors = await hashVectors(this.path);
    const lines = this.known.size;
    const results = await hashResults(this.path);
    this.stored = { ...this.stored, ...more, status: 'complete', finished, lines, results, vectors };
    await this.writeManifest(this.stored);
    await this.close();
  }

  /** Lets other processes at the run. Nothing is lost without it: the end of the process does the same. */
  async close(): Promise<void> {
    const { file, lock } = this;
    this.file = undefined;
    this.lock = undefined;
    await file?.close();
    lock?.release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @returns bytes of the whole lines */
  private async readKnown(): Promise<number> {
    const findings = noFindings();
    for await (const { key } of readLines(this.path, findings)) this.known.add(key);
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
  const found = await stat(file).catch(() => undefined);
  return found && (await TaskVector.load(file));
}

/** SHA-256 of the file of lines. */
export async function hashResults(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(join(path, RESULTS_FILE))) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** SHA-256 of every file of vectors/, by the name of the vector. */
export async function hashVectors(path: string): Promise<Record<string, string>> {
  const names = (await readdir(join(path, 'vectors')).catch(() => []))
    .filter((name) => name.endsWith('.safetensors'))
    .map((name) => name.slice(0, -'.safetensors'.length))
    .sort();
  const hashes: Record<string, string> = {};
  for (const name of names) {
    hashes[name] = createHash('sha256')
      .update(await readFile(join(path, vectorFile(name))))
      .digest('hex');
  }
  return hashes;
}
