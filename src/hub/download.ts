import { existsSync, readdirSync, rmdirSync, rmSync, statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { XpatchError } from '../util/errors.js';
import { makeFolder } from '../util/files.js';
import { RunLock } from '../util/run-lock.js';
import { type CacheRecord, cachedFile, PARTIAL, readRecord, repoFolder, writeRecord } from './cache.js';
import { type Listing, listRepo, openFile } from './hub.js';
import { chooseCheckpoint, chooseFiles, type HubFile, type HubSource, parseHubSource } from './hub-source.js';
import { locateModel, type ModelFiles, type Wanted } from './resolve.js';
import { fetchFile, partialName } from './transfer.js';

/** What is about to be downloaded from a repository. */
export interface DownloadPlan {
  /** `USER/REPO` */
  readonly source: string;
  /** As the repository declares it, such as `apache-2.0`; undefined where it does not. */
  readonly licence?: string;
  /** Whether its owner grants access to it. */
  readonly gated: boolean;
  /** Files that are not there yet, with their bytes. */
  readonly files: readonly { readonly path: string; readonly size: number }[];
  readonly bytes: number;
}

/** How far a download is. */
export interface DownloadProgress {
  readonly stage: 'downloading' | 'checking';
  readonly file: string;
  /** Bytes, of all files of this repository that were missing. */
  readonly done: number;
  readonly total: number;
}

/** What a download can be stopped with, and what it tells. */
export interface DownloadEvents {
  /** Stops the download; what has arrived is kept, and the next one resumes from there. */
  readonly signal?: AbortSignal;
  /** Called before the first byte of a repository, with its licence. */
  readonly onPlan?: (plan: DownloadPlan) => void;
  /** Called as bytes arrive and are checked. */
  readonly onProgress?: (progress: DownloadProgress) => void;
  /** Things that a person may want to know. */
  readonly onNote?: (text: string) => void;
}

/** What to download and how. */
export interface DownloadOptions extends DownloadEvents {
  /** Path or `hf:` URI of the picture encoder. Defaults to the one of the catalogue or of the hub's repository. */
  readonly mmproj?: string;
}

/**
 * Downloads the files of a model that are not on this machine yet, each checked against the hash that the hub lists, into
 * the cache (see `cacheFolder`). If all are there the network is not asked. `loadModel` itself never downloads.
 *
 * @param source name of the catalogue, `hf:` URI, or path of a file (which must be there)
 * @returns the files for `loadModel`
 * @throws {XpatchError} DOWNLOAD_DENIED, DOWNLOAD_FAILED, DOWNLOAD_MISMATCH, FILE_NOT_FOUND, FILE_WRITE, INVALID_ARGUMENT,
 *   MODEL_NOT_DOWNLOADED for a model that has to be converted, ABORTED
 *
 * @example
 * ```ts
 * const files = await downloadModel('smollm2-135m', { onProgress: ({ done, total }) => console.log(done / total) });
 * await using model = await loadModel(files.model, { mmproj: files.mmproj });
 * ```
 */
export async function downloadModel(source: string, options: DownloadOptions = {}): Promise<ModelFiles> {
  const { mmproj, ...events } = options;
  for (let attempt = 0; ; attempt++) {
    const { files, missing } = locateModel(source, mmproj);
    if (files) return files;
    if (attempt > 0) throw new XpatchError('DOWNLOAD_FAILED', `${source} was removed during the download.`);
    await online(missing.map(({ uri }) => uri).join(' and '), events, async () => {
      for (const wanted of missing) {
        const parsed = parseHubSource(wanted.uri);
        await download(parsed, (listed) => chooseWanted(listed, parsed, wanted), events);
      }
    });
  }
}

/**
 * Downloads a Hugging Face checkpoint in safetensors, with its tokenizer and configuration, to be converted.
 *
 * @param uri `hf:USER/REPO`
 * @returns its folder
 * @throws {XpatchError} as downloadModel
 */
export async function downloadCheckpoint(uri: string, events: DownloadEvents = {}): Promise<string> {
  const source = parseHubSource(uri);
  await online(uri, events, () => download(source, (listed) => chooseCheckpoint(listed, source), events));
  return repoFolder(source);
}

/** What the hub says of a repository; nothing is kept of it. @throws {XpatchError} as downloadModel */
export function lookUpRepo(uri: string, events: DownloadEvents = {}): Promise<Listing> {
  return online(uri, events, () => listRepo(parseHubSource(uri), events.signal));
}

const REPORT_MS = 100;
const LOCK_PAUSE_MS = 1000;

/** Work that needs the network, and what an interruption of it says. */
async function online<T>(what: string, { signal }: DownloadEvents, work: () => Promise<T>): Promise<T> {
  if (!signal?.aborted && /^(1|true|on|yes)$/i.test(process.env.HF_HUB_OFFLINE ?? '')) {
    const message = `${what} would have to be downloaded, but HF_HUB_OFFLINE forbids it. \`xpatch models list\` shows what is here.`;
    throw new XpatchError('DOWNLOAD_FAILED', message);
  }
  try {
    signal?.throwIfAborted();
    return await work();
  } catch (error) {
    if (!signal?.aborted) throw error;
    const message = 'The download was stopped. What has arrived is kept: run the same command again to resume.';
    throw new XpatchError('ABORTED', message, { cause: signal.reason });
  }
}

function chooseWanted(listed: readonly HubFile[], source: HubSource, { uri, encoder, sha256 }: Wanted): HubFile[] {
  const { model, mmproj } = chooseFiles(listed, source, encoder);
  const [first] = model;
  // The catalogue knew the content of some files when it was made.
  if (sha256 !== undefined && first?.hash !== `sha256:${sha256}`) {
    const message = `${uri} is not the file that the catalogue of this version of xpatch knows: its hash is ${first?.hash}, not ${sha256}. It has been changed since. To use it anyway, give the URI instead of the name: -m ${uri}`;
    throw new XpatchError('DOWNLOAD_MISMATCH', message);
  }
  return mmproj ? [...model, mmproj] : [...model];
}

async function download(
  source: HubSource,
  choose: (listed: readonly HubFile[]) => HubFile[],
  events: DownloadEvents,
): Promise<void> {
  const { signal, onPlan, onProgress, onNote } = events;
  const folder = repoFolder(source);
  const partial = join(folder, PARTIAL);
  await makeFolder(folder);
  using _lock = await acquire(folder, events);
  const listing = await listRepo(source, signal);
  const before = readRecord(source);
  const files = choose(listing.files);
  // Files of an earlier commit that were not changed since are as good as new.
  const kept = (before?.files ?? []).filter((file) => before && cachedFile(before, file) !== undefined);
  let record: CacheRecord = { ...listing, verified: Object.fromEntries(kept.map(({ path, hash }) => [path, hash])) };
  const missing = files.filter((file) => cachedFile(record, file) === undefined);
  const { licence, gated } = listing;
  const total = missing.reduce((sum, { size }) => sum + size, 0);
  onPlan?.({ source: `${source.user}/${source.repo}`, licence, gated, files: missing, bytes: total });
  sweep(partial, listing.files);
  requireRoom(folder, total);
  await writeRecord(record);

  let arrived = 0;
  let told = 0;
  for (const file of missing) {
    const report = (stage: DownloadProgress['stage'], done: number) => {
      const now = Date.now();
      if (stage === 'downloading' && done < file.size && now - told < REPORT_MS) return;
      told = now;
      onProgress?.({ stage, file: file.path, done: arrived + done, total });
    };
    const openFrom = (byte: number) => openFile(source, listing.commit, file, byte, signal);
    await fetchFile(file, { partial, target: join(folder, ...file.path.split('/')) }, openFrom, {
      signal,
      onBytes: (done) => report('downloading', done),
      onVerify: () => report('checking', file.size),
      onNote: (text) => onNote?.(text),
    });
    record = { ...record, verified: { ...record.verified, [file.path]: file.hash } };
    await writeRecord(record);
    arrived += file.size;
  }
  if (existsSync(partial) && readdirSync(partial).length === 0) rmdirSync(partial);
}

/** At most one process writes a folder of the cache; others wait, and then find the files. */
async function acquire(folder: string, { signal, onNote }: DownloadEvents): Promise<RunLock> {
  for (let told = false; ; told = true) {
    try {
      return await RunLock.acquire(folder, 'The download');
    } catch (error) {
      if (!(error instanceof XpatchError && error.code === 'RUN_BUSY')) throw error;
      if (!told) onNote?.(`${error.message.split(':')[0]} by another process: waiting for it`);
      await delay(LOCK_PAUSE_MS, undefined, { signal });
    }
  }
}

/** Beginnings of files that the repository does not have any more can never be continued. */
function sweep(partial: string, files: readonly HubFile[]): void {
  if (!existsSync(partial)) return;
  const live = new Set(files.map(partialName));
  for (const name of readdirSync(partial)) {
    if (!live.has(name)) rmSync(join(partial, name));
  }
}

function requireRoom(folder: string, bytes: number): void {
  const partial = join(folder, PARTIAL);
  const begun = existsSync(partial) ? readdirSync(partial) : [];
  const arrived = begun.reduce((sum, name) => sum + statSync(join(partial, name)).size, 0);
  const { bavail, bsize } = statfsSync(folder);
  const free = bavail * bsize;
  if (free + arrived >= bytes) return;
  const gigabytes = (n: number) => `${(n / 1e9).toFixed(1)} GB`;
  const message = `${gigabytes(bytes - arrived)} do not fit: ${folder} has ${gigabytes(free)} free. Free some space (\`xpatch models list\` and \`xpatch models rm\`), or name another folder with XPATCH_MODELS.`;
  throw new XpatchError('FILE_WRITE', message);
}
