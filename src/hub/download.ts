import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { ERROR_CODES, XpatchError, type XpatchErrorCode } from '../util/errors.js';
import { repoFolder } from './cache.js';
import type { Listing } from './hub.js';
import { parseHubSource } from './hub-source.js';
import { locateModel, type ModelFiles, type Wanted } from './resolve.js';

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
  /** Stops the download; what has arrived is kept, and the next one goes on from there. */
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

export type DownloadJob =
  | { readonly kind: 'files'; readonly wanted: readonly Wanted[] }
  | { readonly kind: 'checkpoint'; readonly uri: string }
  | { readonly kind: 'list'; readonly uri: string };

export type DownloadMessage =
  | { readonly type: 'plan'; readonly plan: DownloadPlan }
  | { readonly type: 'progress'; readonly progress: DownloadProgress }
  | { readonly type: 'note'; readonly text: string }
  | { readonly type: 'listing'; readonly listing: Listing }
  | { readonly type: 'done' }
  | { readonly type: 'error'; readonly code?: string; readonly message: string; readonly stack?: string };

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
    if (attempt > 0) throw new XpatchError('DOWNLOAD_FAILED', `${source} was removed while it was downloaded.`);
    await runChild({ kind: 'files', wanted: missing }, events);
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
  await runChild({ kind: 'checkpoint', uri }, events);
  return repoFolder(parseHubSource(uri));
}

/** What the hub says of a repository; nothing is kept of it. @throws {XpatchError} as downloadModel */
export async function lookUpRepo(uri: string, events: DownloadEvents = {}): Promise<Listing> {
  let found: Listing | undefined;
  await runChild({ kind: 'list', uri }, events, (listing) => {
    found = listing;
  });
  if (!found) throw new XpatchError('DOWNLOAD_FAILED', `Nothing was said of ${uri}.`);
  return found;
}

/** So long a child may take to end by itself. */
const GRACE_MS = 3000;
const LOG_CHARACTERS = 2000;

async function runChild(
  job: DownloadJob,
  { signal, onPlan, onProgress, onNote }: DownloadEvents,
  onListing?: (listing: Listing) => void,
): Promise<void> {
  const aborted = () =>
    new XpatchError('ABORTED', 'The download was stopped. What has arrived is kept: run the same again to go on.', {
      cause: signal?.reason,
    });
  if (signal?.aborted) throw aborted();
  if (/^(1|true|on|yes)$/i.test(process.env.HF_HUB_OFFLINE ?? '')) {
    const what = job.kind === 'files' ? job.wanted.map(({ uri }) => uri).join(' and ') : job.uri;
    const message = `${what} would have to be downloaded, and HF_HUB_OFFLINE forbids it. \`xpatch models list\` shows what is here.`;
    throw new XpatchError('DOWNLOAD_FAILED', message);
  }
  const child = fork(fileURLToPath(new URL('download-child.js', import.meta.url)), [], {
    execArgv: ['--no-warnings'],
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  let killer: NodeJS.Timeout | undefined;
  const kill = () => child.kill('SIGKILL');
  const stop = () => {
    if (child.connected) child.send('stop', () => undefined);
    killer = setTimeout(kill, GRACE_MS);
  };
  signal?.addEventListener('abort', stop);
  process.on('exit', kill);
  let log = '';
  let end: Extract<DownloadMessage, { type: 'done' | 'error' }> | undefined;
  child.stderr?.on('data', (chunk: Buffer) => {
    log = (log + chunk).slice(-LOG_CHARACTERS);
  });
  child.on('message', (message: DownloadMessage) => {
    if (signal?.aborted) return;
    if (message.type === 'plan') onPlan?.(message.plan);
    else if (message.type === 'progress') onProgress?.(message.progress);
    else if (message.type === 'note') onNote?.(message.text);
    else if (message.type === 'listing') onListing?.(message.listing);
    else end = message;
  });
  const ended = new Promise<string>((resolve) => {
    child.on('error', (error) => resolve(`could not be started (${error.message})`));
    child.on('close', (code, name) => resolve(name ? `was ended by ${name}` : `ended with code ${code}`));
  });
  try {
    child.send(job, () => undefined);
    const how = await ended;
    if (signal?.aborted) throw aborted();
    if (end?.type === 'done') return;
    if (end?.type === 'error') throw errorOf(end);
    const said = log.trim() === '' ? '' : ` It said last:\n${log.trim()}`;
    const message = `The process that downloads ${how}. What has arrived is kept: run the same again to go on.${said}`;
    throw new XpatchError('DOWNLOAD_FAILED', message);
  } finally {
    clearTimeout(killer);
    signal?.removeEventListener('abort', stop);
    process.off('exit', kill);
  }
}

function errorOf({ code, message, stack }: Extract<DownloadMessage, { type: 'error' }>): Error {
  if (ERROR_CODES.includes(code as XpatchErrorCode)) return new XpatchError(code as XpatchErrorCode, message);
  return Object.assign(new Error(message), { stack });
}
