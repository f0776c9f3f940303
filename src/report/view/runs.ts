import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, lstat, open, readdir, realpath, stat } from 'node:fs/promises';
import { basename, extname, join, sep } from 'node:path';
import { type Manifest, STATUSES, type Status } from '../../experiment/manifest.js';
import { isToMerge, nameOfShard } from '../../experiment/shard.js';
import { XpatchError } from '../../util/errors.js';
import { systemReason } from '../../util/system-reason.js';

/** A folder with a manifest. */
export interface RunEntry {
  /** Name of the folder and a hash of its path: the same after a restart. */
  readonly id: string;
  /** Without symbolic links. */
  readonly path: string;
}

/** What a list says about a run. Strings come from the manifest as they are: hostile until escaped. */
export interface Run extends RunEntry {
  readonly state: Status | 'broken';
  /** Why it is broken, with the code of the error. */
  readonly problem?: string;
  /** Which part of a run it is that has no report of its own, such as `1/4 of the validation`. */
  readonly part?: string;
  readonly title: string;
  readonly experiment: string;
  readonly model: string;
  /** The prompt that it is about, and its result in a few words; empty without. */
  readonly prompt: string;
  readonly headline: string;
  /** ISO 8601, or whatever is written there. */
  readonly started: string;
  /** Of all files. */
  readonly bytes: number;
  readonly hasReport: boolean;
  /** Those that are served, as `report.html` or `tables/lenient.csv`. */
  readonly files: readonly string[];
}

const MAX_MANIFEST_BYTES = 4 * 2 ** 20;
/** A given folder, its folders, and theirs. */
const MAX_DEPTH = 2;

const TYPES: Record<string, string> = {
  '.csv': 'text/csv; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.json': 'application/json; charset=utf-8',
  '.md': 'text/plain; charset=utf-8',
  '.png': 'image/png',
  '.svg': 'image/svg+xml; charset=utf-8',
  '.tex': 'text/plain; charset=utf-8',
  '.txt': 'text/plain; charset=utf-8',
};

/**
 * The runs that are `roots`, or lie in them one or two folders deep; in the order of the roots, then by name. Folders
 * whose name begins with a dot, node_modules, and symbolic links in a root are passed over.
 *
 * @throws {XpatchError} FILE_NOT_FOUND when a root does not exist, RUN_INVALID when it is not a folder, cannot be read, or
 * holds no run
 */
export async function findRuns(roots: readonly string[]): Promise<RunEntry[]> {
  const found = new Map<string, RunEntry>();
  for (const root of roots) {
    const runs = await runsBelow(await realFolder(root), 0).catch((cause: Error) => {
      throw new XpatchError('RUN_INVALID', `The folder ${root} cannot be read: ${systemReason(cause)}.`, { cause });
    });
    if (runs.length === 0) {
      const message = `There is no run in ${root}: no manifest.json there, nor up to ${MAX_DEPTH} folders deeper. Name the folder that a command wrote with --output, or the one around it.`;
      throw new XpatchError('RUN_INVALID', message);
    }
    for (const path of runs) found.set(path, { id: runId(path), path });
  }
  return [...found.values()];
}

async function realFolder(root: string): Promise<string> {
  let path: string;
  try {
    path = await realpath(root);
  } catch (cause) {
    const message = `There is no folder ${root}. Name the folder of a run, or one that holds runs.`;
    throw new XpatchError('FILE_NOT_FOUND', message, { cause });
  }
  if ((await stat(path)).isDirectory()) return path;
  throw new XpatchError('RUN_INVALID', `${root} is a file. Name the folder of the run.`);
}

async function runsBelow(folder: string, depth: number): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  const hasManifest = entries.some(({ name }) => name === 'manifest.json');
  if (hasManifest && (depth === 0 || !(await isOthers(folder)))) return [folder];
  if (depth === MAX_DEPTH) return [];
  const runs: string[] = [];
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (!entry.isDirectory() || /^\.|^node_modules$/.test(entry.name)) continue;
    // A folder of somebody else's beside the runs is none of our business.
    runs.push(...(await runsBelow(join(folder, entry.name), depth + 1).catch(() => [])));
  }
  return runs;
}

/** Whether the manifest says of itself that it is of no run: those of models, web apps and browser extensions have that name too. */
async function isOthers(folder: string): Promise<boolean> {
  const text = await readManifest({ id: '', path: folder }).catch(() => '');
  try {
    return !('status' in record(JSON.parse(text)));
  } catch {
    return false;
  }
}

function runId(path: string): string {
  const name = basename(path).replace(/[^A-Za-z0-9_-]+/g, '-');
  return `${name.slice(0, 40)}-${createHash('sha256').update(path).digest('hex').slice(0, 10)}`;
}

/** Reads what the manifest says; a broken run is described, never thrown. */
export async function readRun(entry: RunEntry): Promise<Run> {
  const [bytes, files, hasReport] = await Promise.all([
    folderBytes(entry.path),
    listRunFiles(entry),
    openRunFile(entry, 'report.html').then(
      ({ handle, size }) => handle.close().then(() => size > 0),
      () => false,
    ),
  ]);
  const known = { ...entry, bytes, files, hasReport };
  let manifest: Record<string, unknown> = {};
  try {
    const value: unknown = JSON.parse(await readManifest(entry));
    if (value === null || typeof value !== 'object' || Array.isArray(value))
      throw new Error('manifest.json is not an object.');
    manifest = value as Record<string, unknown>;
    const status = STATUSES.find((name) => name === manifest.status);
    if (status === undefined) {
      throw new Error(`The status in manifest.json is none of ${STATUSES.join(', ')}: this is not an xpatch run.`);
    }
    const { shard, layerFrom } = manifest as Partial<Manifest>;
    if (status === 'complete' && shard && !hasReport && isToMerge({ shard, layerFrom })) {
      return { ...known, state: status, part: nameOfShard(shard), ...facts(entry, manifest) };
    }
    if (status === 'complete' && !hasReport) {
      throw new Error('The run is complete but has no report.html that can be read. Run its command again.');
    }
    return { ...known, state: status, ...facts(entry, manifest) };
  } catch (error) {
    const { message } = error as Error;
    const problem = error instanceof SyntaxError ? `manifest.json is not JSON: ${message}.` : message;
    return { ...known, state: 'broken', problem: `RUN_INVALID: ${problem}`, ...facts(entry, manifest) };
  }
}

function facts({ path }: RunEntry, manifest: Readonly<Record<string, unknown>>) {
  const { model, options } = manifest;
  const { prompt } = record(options);
  return {
    title: text(manifest.title) || basename(path),
    experiment: text(manifest.experiment),
    model: text(record(model).name ?? model),
    prompt: text(record(prompt).text ?? prompt),
    headline: text(manifest.headline),
    started: text(manifest.started),
  };
}

const text = (value: unknown): string => (typeof value === 'string' ? value : '');
const record = (value: unknown): Readonly<Record<string, unknown>> =>
  value !== null && typeof value === 'object' ? (value as Record<string, unknown>) : {};

/** Bytes of the files in a run, without following symbolic links. */
async function folderBytes(folder: string): Promise<number> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const sizes = await Promise.all(
    entries.map((entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return folderBytes(path);
      return lstat(path).then(
        (info) => (info.isFile() ? info.size : 0),
        () => 0,
      );
    }),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** The files of a run that may be read, as `report.html` or `tables/lenient.csv`, in the order of their names. */
async function listRunFiles({ path }: RunEntry): Promise<string[]> {
  const names: string[] = [];
  for (const folder of ['', 'figures', 'tables']) {
    const entries = await readdir(join(path, folder), { withFileTypes: true }).catch(() => []);
    const files = entries.filter((entry) => entry.isFile()).map(({ name }) => (folder ? `${folder}/${name}` : name));
    names.push(...files.filter(isReadable).sort());
  }
  return names;
}

/** Whether a file belongs to the public part of a run: no way out of its folder, no hidden file, no unknown type. */
function isReadable(name: string): boolean {
  if (name === 'report.html' || name === 'manifest.json') return true;
  // A colon would name an alternate stream on Windows.
  return (
    /^(figures|tables)\/[^./\\:\0][^/\\:\0]*$/.test(name) &&
    !/\.html?$/i.test(name) &&
    Object.hasOwn(TYPES, extname(name))
  );
}

/** @throws {XpatchError} FILE_NOT_FOUND, RUN_INVALID when it is too long */
async function readManifest(entry: RunEntry): Promise<string> {
  const { handle, size } = await openRunFile(entry, 'manifest.json');
  try {
    if (size <= MAX_MANIFEST_BYTES) return await handle.readFile('utf8');
  } finally {
    await handle.close();
  }
  const message = `manifest.json has ${size} bytes, more than the limit of ${MAX_MANIFEST_BYTES}.`;
  throw new XpatchError('RUN_INVALID', message);
}

/**
 * Opens a file of a run: `report.html`, `manifest.json`, or a file in `figures/` or `tables/`. The caller closes it.
 * @throws {XpatchError} FILE_NOT_FOUND also for everything else, for symbolic links and for what is not a file
 */
export async function openRunFile(
  { path }: RunEntry,
  name: string,
): Promise<{ handle: FileHandle; size: number; type: string }> {
  const missing = (cause?: unknown) =>
    new XpatchError('FILE_NOT_FOUND', `The run has no file ${name} that can be read.`, { cause });
  if (!isReadable(name)) throw missing();
  const file = join(path, ...name.split('/'));
  let handle: FileHandle | undefined;
  try {
    // Any link on the way, also one of the folder above, shows as another real path. A pipe must not block the open.
    if ((await realpath(file)) !== file || !file.startsWith(path + sep)) throw missing();
    handle = await open(file, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0));
    const info = await handle.stat();
    if (!info.isFile()) throw missing();
    return { handle, size: info.size, type: TYPES[extname(name)] as string };
  } catch (cause) {
    await handle?.close();
    throw cause instanceof XpatchError ? cause : missing(cause);
  }
}
