import { homedir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Response } from 'undici';
import { XpatchError } from '../util/errors.js';
import { readWholeSync } from '../util/read-file.js';
import type { CacheRecord } from './cache.js';
import { bytesOf, printable, send } from './connection.js';
import { formatHubSource, type HubFile, type HubSource, isSafePath } from './hub-source.js';

/** Of the Hugging Face hub, or one that speaks its protocol: MODEL_ENDPOINT or HF_ENDPOINT. */
function hubEndpoint(): URL {
  const { MODEL_ENDPOINT, HF_ENDPOINT } = process.env;
  const text = MODEL_ENDPOINT || HF_ENDPOINT || 'https://huggingface.co';
  const url = URL.canParse(text) ? new URL(text.endsWith('/') ? text : `${text}/`) : undefined;
  if (url?.protocol === 'https:' || url?.protocol === 'http:') return url;
  throw new XpatchError(
    'INVALID_ARGUMENT',
    `HF_ENDPOINT is ${JSON.stringify(text)}, which is not an http: or https: URL.`,
  );
}

/** HF_TOKEN, or what `hf auth login` has kept. */
function hubToken(): string | undefined {
  const { HF_TOKEN, HF_TOKEN_PATH, HF_HOME, XDG_CACHE_HOME } = process.env;
  if (HF_TOKEN?.trim()) return HF_TOKEN.trim();
  const home = HF_HOME || join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface');
  try {
    const token = readWholeSync(HF_TOKEN_PATH || join(home, 'token'), { what: 'the token', maxBytes: 4096 });
    return token.toString('utf8').trim() || undefined;
  } catch {
    return undefined;
  }
}

export type Listing = Omit<CacheRecord, 'verified'>;

const MAX_LISTING = 32 << 20;
const MAX_REDIRECTS = 5;
/** Pauses before a busy hub is asked again. */
const PAUSES_MS = [1000, 4000];

/**
 * The files of a repository with their hashes, and the licence that it declares.
 *
 * @throws {XpatchError} DOWNLOAD_DENIED, DOWNLOAD_FAILED, FILE_NOT_FOUND
 */
export async function listRepo(source: HubSource, signal?: AbortSignal): Promise<Listing> {
  const { user, repo, revision } = source;
  const url = new URL(`api/models/${user}/${repo}/revision/${encodeURIComponent(revision)}?blobs=true`, hubEndpoint());
  const text = await readBounded(await ask(url, source, { signal }));
  const failed = (why: string) => new XpatchError('DOWNLOAD_FAILED', `${url.host} sent an unusable answer: ${why}.`);
  let answer: Answer;
  try {
    answer = JSON.parse(text) as Answer;
  } catch {
    throw failed('not JSON. Does your network require a login, or is HF_ENDPOINT wrong?');
  }
  if (typeof answer?.sha !== 'string' || !/^[0-9a-f]{7,64}$/.test(answer.sha) || !Array.isArray(answer.siblings)) {
    throw failed('not a list of files');
  }
  const tag = answer.tags?.find?.((text) => typeof text === 'string' && text.startsWith('license:'));
  const licence = answer.cardData?.license_name ?? answer.cardData?.license ?? tag?.slice('license:'.length);
  const files = answer.siblings.flatMap(hubFile);
  const gated = answer.gated !== undefined && answer.gated !== false && answer.gated !== 'false';
  return {
    user,
    repo,
    revision,
    commit: answer.sha,
    ...(licence && { licence: printable(String(licence)) }),
    gated,
    files,
  };
}

interface Answer {
  readonly sha?: unknown;
  readonly gated?: unknown;
  readonly tags?: readonly string[];
  readonly cardData?: { readonly license?: unknown; readonly license_name?: unknown };
  readonly siblings?: readonly Sibling[];
}

interface Sibling {
  readonly rfilename?: unknown;
  readonly size?: unknown;
  readonly blobId?: unknown;
  readonly lfs?: { readonly sha256?: unknown; readonly size?: unknown };
}

/** A file that nothing can be checked of is left out: it could not be trusted. */
function hubFile({ rfilename: path, size, blobId, lfs }: Sibling): HubFile[] {
  const bytes = lfs?.size ?? size;
  const sha256 = typeof lfs?.sha256 === 'string' && /^[0-9a-f]{64}$/.test(lfs.sha256) ? lfs.sha256 : undefined;
  const blob = !lfs && typeof blobId === 'string' && /^[0-9a-f]{40}$/.test(blobId) ? blobId : undefined;
  const hash = sha256 ? `sha256:${sha256}` : blob && `git:${blob}`;
  if (typeof path !== 'string' || !isSafePath(path) || !Number.isSafeInteger(bytes) || (bytes as number) < 0 || !hash)
    return [];
  return [{ path, size: bytes as number, hash }];
}

/** An answer, and who gave it in the end. */
interface Reached {
  readonly response: Response;
  readonly url: URL;
}

/** Bytes of a file that are on their way. */
export interface FileBytes {
  /** Where they begin: 0 from a server that knows no ranges. */
  readonly from: number;
  readonly bytes: AsyncIterable<Uint8Array>;
}

/**
 * Asks for a file from byte `from` on. The hub mostly answers with an address elsewhere that is good for some minutes or hours,
 * so every request begins at the hub.
 *
 * @throws {XpatchError} as listRepo; DOWNLOAD_MISMATCH where the file is not as long as it was listed
 */
export async function openFile(
  source: HubSource,
  commit: string,
  file: HubFile,
  from: number,
  signal?: AbortSignal,
): Promise<FileBytes> {
  const way = file.path.split('/').map(encodeURIComponent).join('/');
  const url = new URL(`${source.user}/${source.repo}/resolve/${commit}/${way}`, hubEndpoint());
  const headers = { range: `bytes=${from}-${file.size - 1}` };
  const { response, url: last } = await ask(url, source, { signal, headers, file });
  const begins = response.status === 206 ? Number(/^bytes (\d+)-/.exec(rangeOf(response))?.[1]) : 0;
  if (begins === 0 || begins === from) return { from: begins, bytes: bytesOf(response, last) };
  throw new XpatchError('DOWNLOAD_FAILED', `${last.host} was asked for the bytes from ${from} and sends others.`);
}

interface Request {
  readonly headers?: Record<string, string>;
  readonly signal?: AbortSignal;
  /** What is asked for, if it is a file: answers about one of another length are refused. */
  readonly file?: HubFile;
}

async function ask(first: URL, source: HubSource, { headers, signal, file }: Request): Promise<Reached> {
  let url = first;
  let redirects = 0;
  for (let attempt = 0; ; ) {
    const response = await send(url, { ...headersFor(url), ...headers }, signal);
    const { status } = response;
    const said = bytesSaid(response);
    if (file && said !== undefined && said !== file.size) {
      await response.body?.cancel();
      throw mismatch(file, `the hub sends ${said} bytes but lists ${file.size}`);
    }
    if (response.ok) return { response, url };
    await response.body?.cancel();
    const target = response.headers.get('location');
    if (status >= 300 && status < 400 && target && URL.canParse(target, url.href)) {
      const next = new URL(target, url);
      if (next.protocol !== 'https:' && next.protocol !== url.protocol) {
        throw new XpatchError(
          'DOWNLOAD_FAILED',
          `${url.host} redirects from https: to ${next.protocol}, which is refused.`,
        );
      }
      if (++redirects > MAX_REDIRECTS) throw new XpatchError('DOWNLOAD_FAILED', `${first.host} redirects in circles.`);
      url = next;
      continue;
    }
    const pause = PAUSES_MS[attempt++];
    if ((status !== 429 && status < 500) || pause === undefined) throw statusError(status, source, response);
    await delay(pause, undefined, { signal });
  }
}

const rangeOf = ({ headers }: Response) => headers.get('content-range') ?? '';

/** How long a whole file is by an answer about it, if it tells. */
function bytesSaid(response: Response): number | undefined {
  const { status, headers } = response;
  const whole = status === 200 ? headers.get('content-length') : undefined;
  const text = headers.get('x-linked-size') ?? /\/(\d+)$/.exec(rangeOf(response))?.[1] ?? whole;
  return text && /^\d+$/.test(text) ? Number(text) : undefined;
}

/** The token goes to the hub only, and never readable on the way. */
function headersFor(url: URL): Record<string, string> {
  const safe = url.protocol === 'https:' || /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(url.hostname);
  const token = safe && url.origin === hubEndpoint().origin ? hubToken() : undefined;
  return token === undefined ? {} : { authorization: `Bearer ${token}` };
}

async function readBounded({ response, url }: Reached): Promise<string> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of bytesOf(response, url)) {
    length += chunk.length;
    if (length > MAX_LISTING) {
      throw new XpatchError('DOWNLOAD_FAILED', `${url.host} sends a list of files longer than ${MAX_LISTING} bytes.`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** DOWNLOAD_MISMATCH */
export function mismatch(file: HubFile, problem: string): XpatchError {
  const message = `${file.path} is not what the hub lists: ${problem}. Nothing of it was kept. Try again; if it fails again, the server or a proxy changes files.`;
  return new XpatchError('DOWNLOAD_MISMATCH', message);
}

/** An unsuccessful response, in words. */
function statusError(status: number, source: HubSource, response?: Response): XpatchError {
  const name = formatHubSource({ ...source, file: undefined, quantisation: undefined });
  const page = new URL(`${source.user}/${source.repo}`, hubEndpoint()).href;
  const detail = response?.headers.get('x-error-message');
  const said = detail ? ` It says: ${printable(detail)}` : '';
  if (status === 401 || status === 403) {
    const token = hubToken()
      ? 'Your token (HF_TOKEN) does not give access.'
      : 'If you have access, set HF_TOKEN to your token.';
    const message = `The hub refuses ${name} (${status}): it is gated, private, or does not exist. Accept its conditions at ${page}, or check the name. ${token}${said}`;
    return new XpatchError('DOWNLOAD_DENIED', message);
  }
  if (status === 404)
    return new XpatchError('FILE_NOT_FOUND', `The hub has no ${name}. Check the name at ${page}.${said}`);
  const wait = status === 429 || status >= 500 ? ' Try again later: what was downloaded is kept.' : '';
  return new XpatchError('DOWNLOAD_FAILED', `The hub answered ${status} for ${name}.${wait}${said}`);
}
