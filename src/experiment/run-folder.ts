import { existsSync } from 'node:fs';
import { readdir, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { XpatchError } from '../util/errors.js';
import { makeFolder, writeError, writeFileAtomic } from '../util/files.js';
import type { TaskVector } from '../vectors/task-vector.js';
import { LineFile, lostError } from './result-file.js';

/** A killed run is left with `running`, as one of \`eval\` that can go on. */
export const STATUSES = ['running', 'complete', 'interrupted', 'failed'] as const;

/** What a run needs to be repeated: written first, and again when it ends. */
export interface Manifest {
  status: (typeof STATUSES)[number];
  [key: string]: unknown;
}

export const MANIFEST_FILE = 'manifest.json';
export const RESULTS_FILE = 'results.jsonl';

/**
 * The folder of a run: `manifest.json`, `results.jsonl` (one line a result), `vectors/`, `tables/`, `figures/`,
 * `report.html`. Whole files are written atomically; lines are appended as they come. Either is on the disk when the promise resolves.
 */
export class RunFolder {
  /** Bytes of its lines. */
  private size = 0;

  protected constructor(readonly path: string) {}

  /**
   * @throws {XpatchError} FILE_WRITE when the folder cannot be made or holds something already.
   */
  static async create(path: string, manifest: Manifest): Promise<RunFolder> {
    await makeFolder(path);
    requireEmpty(path, await readdir(path));
    const folder = new RunFolder(path);
    // Of two commands that start at once only one makes the file.
    await writeFile(join(path, 'manifest.json'), '', { flag: 'wx' }).catch((cause) => {
      throw writeError(path, cause);
    });
    await folder.writeManifest(manifest);
    return folder;
  }

  /** Writes `manifest.json`. @throws {XpatchError} FILE_WRITE */
  async writeManifest(manifest: Manifest): Promise<void> {
    await this.write(MANIFEST_FILE, `${JSON.stringify(manifest, null, 2)}\n`);
  }

  /**
   * @param name path inside the folder
   * @param content whole, or in chunks that are written one after the other
   * @throws {XpatchError} FILE_WRITE
   */
  async write(name: string, content: string | Uint8Array | Iterable<Uint8Array>): Promise<void> {
    await writeFileAtomic(await this.place(name), content);
  }

  /** @throws {XpatchError} FILE_WRITE; INVALID_ARGUMENT for a name that is no file name */
  async saveVector(name: string, vector: TaskVector): Promise<void> {
    await vector.save(await this.place(vectorFile(name)));
  }

  /** Appends to `results.jsonl`. @throws {XpatchError} FILE_WRITE; RUN_INVALID when what it wrote before has gone */
  async append(lines: readonly object[]): Promise<void> {
    await this.requireWhole();
    const file = await LineFile.open(join(this.path, RESULTS_FILE));
    try {
      await file.append(lines);
      this.size = file.size;
    } finally {
      await file.close();
    }
  }

  /** Whether the run still stands where it was written; to be asked before it is called complete. @throws {XpatchError} RUN_INVALID */
  async requireWhole(): Promise<void> {
    if (!existsSync(join(this.path, MANIFEST_FILE))) throw lostError(join(this.path, MANIFEST_FILE), 'was deleted');
    const file = join(this.path, RESULTS_FILE);
    const size = (await stat(file).catch(() => undefined))?.size ?? 0;
    if (size !== this.size) throw lostError(file, `has ${size} bytes, and ${this.size} were written: it was changed`);
  }

  /** The path of a file of the run, whose folder then exists. */
  private async place(name: string): Promise<string> {
    const file = join(this.path, name);
    if (!existsSync(this.path)) throw lostError(this.path, 'was deleted');
    await makeFolder(dirname(file));
    return file;
  }
}

/** @throws {XpatchError} FILE_WRITE */
export function requireEmpty(path: string, names: readonly string[]): void {
  if (names.length === 0) return;
  const found = names.slice(0, 3).join(', ');
  throw new XpatchError(
    'FILE_WRITE',
    `The run folder ${path} is not empty (${found}). Name another one, or remove it.`,
  );
}

/** Where a run keeps a vector. @throws {XpatchError} INVALID_ARGUMENT for a name that is no file name */
export function vectorFile(name: string): string {
  if (/^[^./\\:\0][^/\\:\0]*$/.test(name)) return `vectors/${name}.safetensors`;
  throw new XpatchError('INVALID_ARGUMENT', `${JSON.stringify(name)} cannot name a vector: it must be a file name.`);
}
