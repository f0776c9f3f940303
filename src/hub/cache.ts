import { existsSync, readdirSync, rmdirSync, rmSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { XpatchError } from '../util/errors.js';
import { writeError, writeFileAtomic } from '../util/files.js';
import { parseJson } from '../util/json.js';
import { readWholeSync } from '../util/read-file.js';
import { type HubFile, type HubSource, isDefaultRevision, isSafePath } from './hub-source.js';

/**
 * The folder that keeps downloaded models: `$XPATCH_MODELS`, else `xpatch/models` in `$XDG_CACHE_HOME`, in `%LOCALAPPDATA%` on
 * Windows, or in `~/.cache`.
 */
export function cacheFolder(): string {
  return process.env.XPATCH_MODELS || join(ownFolder(), 'models');
}

/** Where it is remembered which files were loaded on this machine; not with the models, which several users may share. */
export function trialFolder(): string {
  return join(ownFolder(), 'trials');
}

/** Where the points of models are remembered. */
export function pointsFolder(): string {
  return join(ownFolder(), 'points');
}

function ownFolder(): string {
  const { XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  const base = XDG_CACHE_HOME || (process.platform === 'win32' && LOCALAPPDATA) || join(homedir(), '.cache');
  return join(base, 'xpatch');
}

/** What is known of a repository: how the hub listed it, and which files were downloaded and had the right hash. */
export interface CacheRecord {
  readonly user: string;
  readonly repo: string;
  readonly revision: string;
  /** The commit that the revision was at. */
  readonly commit: string;
  /** As the repository declares it, such as `apache-2.0`; undefined where it does not. */
  readonly licence?: string;
  /** Whether its owner grants access to it, one by one or to all who agree to conditions. */
  readonly gated: boolean;
  readonly files: readonly HubFile[];
  /** Hashes of the files that are there, by path. */
  readonly verified: Readonly<Record<string, string>>;
}

const RECORD = '.xpatch.json';
const RECORD_FILE = { what: 'the record', maxBytes: 32 << 20 } as const;
/** Folder of downloads that are not complete. */
export const PARTIAL = '.partial';

/** Where the files of a repository are kept. */
export function repoFolder({ user, repo, revision }: Pick<HubSource, 'user' | 'repo' | 'revision'>): string {
  const name = isDefaultRevision(revision) ? repo : `${repo}@${revision.replaceAll('/', '+')}`;
  return join(cacheFolder(), user, name);
}

export function readRecord(source: Pick<HubSource, 'user' | 'repo' | 'revision'>): CacheRecord | undefined {
  return readRecordIn(repoFolder(source));
}

function readRecordIn(folder: string): CacheRecord | undefined {
  const file = join(folder, RECORD);
  if (!existsSync(file)) return undefined;
  try {
    const record = parseJson(readWholeSync(file, RECORD_FILE)) as CacheRecord;
    const texts = [record.user, record.repo, record.revision, record.commit];
    const isFile = ({ path, size, hash }: HubFile) =>
      isSafePath(path) && Number.isSafeInteger(size) && typeof hash === 'string';
    const good = texts.every((text) => typeof text === 'string') && record.files.every(isFile);
    if (good && Object.values(record.verified).every((hash) => typeof hash === 'string')) return record;
    throw new Error('it is not a record of a repository');
  } catch (cause) {
    const message = `${file} is damaged: it ${(cause as Error).message.replace(/^it /, '')}. Delete the folder ${folder} and download the model again.`;
    throw new XpatchError('FILE_NOT_FOUND', message, { cause });
  }
}

function readRecordOr(folder: string, onDamaged?: (error: XpatchError) => void): CacheRecord | undefined {
  try {
    return readRecordIn(folder);
  } catch (error) {
    onDamaged?.(error as XpatchError);
    return undefined;
  }
}

/** @throws {XpatchError} FILE_WRITE */
export async function writeRecord(record: CacheRecord): Promise<void> {
  await writeFileAtomic(join(repoFolder(record), RECORD), `${JSON.stringify(record, null, 1)}\n`);
}

/** The path of a file that was downloaded whole, checked against its hash and is still as long as it was; else undefined. */
export function cachedFile(record: CacheRecord, { path, size, hash }: HubFile): string | undefined {
  if (record.verified[path] !== hash) return undefined;
  const file = join(repoFolder(record), ...path.split('/'));
  return statSync(file, { throwIfNoEntry: false })?.size === size ? file : undefined;
}

/** Where the conversion of a model of the catalogue is looked for. No user of the hub can have a name like that. */
export function convertedFolder(name: string): string {
  return join(cacheFolder(), '_converted', name);
}

/** The GGUF files in there. */
export function convertedFiles(name: string): string[] {
  const folder = convertedFolder(name);
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((file) => file.endsWith('.gguf') && !file.startsWith('.'))
    .sort()
    .map((file) => join(folder, file));
}

/** Bytes of everything in the cache. */
export function cacheBytes(): number {
  return bytesIn(cacheFolder());
}

/** A repository of which something is in the cache. */
export interface CachedRepo {
  readonly record: CacheRecord;
  readonly folder: string;
  /** Complete files. */
  readonly files: readonly HubFile[];
  /** Bytes on the disk, incomplete downloads included. */
  readonly bytes: number;
  /** Bytes of these. */
  readonly partial: number;
}

/** @param onDamaged told of a folder whose record cannot be read; it is left out. Defaults to nothing */
export function listCache(onDamaged?: (error: XpatchError) => void): CachedRepo[] {
  const root = cacheFolder();
  return foldersIn(root).flatMap((user) =>
    foldersIn(join(root, user)).flatMap((name) => {
      const folder = join(root, user, name);
      const record = readRecordOr(folder, onDamaged);
      if (!record || repoFolder(record) !== folder) return [];
      const files = record.files.filter((file) => cachedFile(record, file) !== undefined);
      const partial = bytesIn(join(folder, PARTIAL));
      return { record, folder, files, partial, bytes: bytesIn(folder) };
    }),
  );
}

/**
 * Removes files of a repository from the cache, and the whole folder once no model is left in it.
 *
 * @param paths of its files; undefined for all
 * @returns the files that were removed, and their bytes
 * @throws {XpatchError} FILE_WRITE
 */
export async function removeFromCache(
  { record, folder }: CachedRepo,
  paths?: readonly string[],
): Promise<{ files: string[]; bytes: number }> {
  const before = bytesIn(folder);
  const gone = record.files.filter(
    (file) => cachedFile(record, file) && (paths === undefined || paths.includes(file.path)),
  );
  const left = record.files.filter((file) => cachedFile(record, file) && !gone.includes(file));
  try {
    if (left.length === 0) {
      rmSync(folder, { recursive: true });
      if (readdirSync(dirname(folder)).length === 0) rmdirSync(dirname(folder));
    } else {
      const verified = Object.fromEntries(left.map(({ path, hash }) => [path, hash]));
      await writeRecord({ ...record, verified });
      for (const { path } of gone) rmSync(join(folder, ...path.split('/')));
      rmSync(join(folder, PARTIAL), { recursive: true, force: true });
    }
  } catch (cause) {
    throw cause instanceof XpatchError ? cause : writeError(folder, cause);
  }
  return { files: gone.map(({ path }) => join(folder, ...path.split('/'))), bytes: before - bytesIn(folder) };
}

/** Removes the conversion of a model of the catalogue. @throws {XpatchError} FILE_WRITE */
export function removeConverted(name: string): { files: string[]; bytes: number } {
  const files = convertedFiles(name);
  const folder = convertedFolder(name);
  const bytes = bytesIn(folder);
  try {
    rmSync(folder, { recursive: true, force: true });
  } catch (cause) {
    throw writeError(folder, cause);
  }
  return { files, bytes };
}

function foldersIn(folder: string): string[] {
  if (!existsSync(folder)) return [];
  const entries = readdirSync(folder, { withFileTypes: true });
  return entries.flatMap((entry) => (entry.isDirectory() && !entry.name.startsWith('.') ? [entry.name] : [])).sort();
}

function bytesIn(folder: string): number {
  if (!existsSync(folder)) return 0;
  return readdirSync(folder, { withFileTypes: true, recursive: true }).reduce(
    (sum, entry) => sum + (entry.isFile() ? sizeOf(join(entry.parentPath ?? entry.path, entry.name)) : 0),
    0,
  );
}

/** 0 for a file that has gone meanwhile: another command may be downloading. */
function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}
