import { appendFile, readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { XpatchError } from '../errors.js';
import { makeFolder, writeFileAtomic } from '../files.js';
import type { TaskVector } from '../vectors/task-vector.js';

/** What a run needs to be repeated: written first, and again when it ends. */
export interface Manifest {
  status: 'running' | 'complete';
  [key: string]: unknown;
}

/**
 * The folder of a run: `manifest.json`, `results.jsonl` (one line a scored query), `vectors/`, `tables/`, `figures/`,
 * `report.html`. Whole files are written atomically; lines are appended as they come, so that an interrupted run keeps them.
 */
export class RunFolder {
  private constructor(readonly path: string) {}

  /**
   * @throws XpatchError FILE_WRITE when the folder cannot be made or holds something already.
   */
  static async create(path: string, manifest: Manifest): Promise<RunFolder> {
    await makeFolder(path);
    const others = await readdir(path);
    if (others.length) {
      throw new XpatchError(
        'FILE_WRITE',
        `The run folder ${path} is not empty (${others.slice(0, 3).join(', ')}). Name another one, or remove it.`,
      );
    }
    const folder = new RunFolder(path);
    // Of two commands that start at once only one makes the file.
    await writeFile(join(path, 'manifest.json'), '', { flag: 'wx' }).catch((cause) => {
      throw new XpatchError('FILE_WRITE', `The run folder ${path} cannot be begun: ${(cause as Error).message}`, {
        cause,
      });
    });
    await folder.writeManifest(manifest);
    return folder;
  }

  async writeManifest(manifest: Manifest): Promise<void> {
    await this.write('manifest.json', `${JSON.stringify(manifest, null, 2)}\n`);
  }

  /**
   * @param name path inside the folder
   * @param content whole, or in chunks that are written one after the other
   */
  async write(name: string, content: string | Uint8Array | Iterable<Uint8Array>): Promise<void> {
    await writeFileAtomic(await this.place(name), content);
  }

  async saveVector(name: string, vector: TaskVector): Promise<void> {
    await vector.save(await this.place(`vectors/${name}.safetensors`));
  }

  /** The path of a file of the run, whose folder then exists. */
  private async place(name: string): Promise<string> {
    const file = join(this.path, name);
    await makeFolder(dirname(file));
    return file;
  }

  /** @throws XpatchError FILE_WRITE */
  async append(lines: readonly object[]): Promise<void> {
    const file = join(this.path, 'results.jsonl');
    try {
      await appendFile(file, lines.map((line) => `${JSON.stringify(line)}\n`).join(''), { flush: true });
    } catch (cause) {
      throw new XpatchError('FILE_WRITE', `Could not append to ${file}: ${(cause as Error).message}`, { cause });
    }
  }
}
