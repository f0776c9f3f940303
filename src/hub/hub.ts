import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { XpatchError } from '../util/errors.js';
import { PACKAGE_ROOT } from '../util/package-root.js';
import { readWholeSync } from '../util/read-file.js';
import type { CacheRecord } from './cache.js';
import { formatHubSource, type HubFile, type HubSource, isSafePath } from './hub-source.js';

/** Of the Hugging Face hub, or one that speaks its protocol: MODEL_ENDPOINT or HF_ENDPOINT. */
export function hubEndpoint(): URL {
  const { MODEL_ENDPOINT, HF_ENDPOINT } = process.env;
  const text = MODEL_ENDPOINT || HF_ENDPOINT || 'https://huggingface.co';
  const url = URL.canParse(text) ? new URL(text.endsWith('/') ? text : `${text}/`) : undefined;
  if (url?.protocol === 'https:' || url?.protocol === 'http:') return url;
  throw new XpatchError('INVALID_ARGUMENT', `HF_ENDPOINT is ${JSON.stringify(text)}, which is no http: or https: URL.`);
}

/** Milliseconds without an answer or a byte: HF_HUB_DOWNLOAD_TIMEOUT in seconds. Defaults to 60 s. */
export function patienceMs(): number {
  const seconds = Number(process.env.HF_HUB_DOWNLOAD_TIMEOUT);
  return seconds > 0 ? seconds * 1000 : 60_000;
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

/** Where a file is really served, and what the request for it must carry. */
export interface FileLocation {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Bytes, where the hub says it. */
  readonly size?: number;
}

export type Listing = Omit<CacheRecord, 'verified'>;

const MAX_LISTING = 32 << 20;
const MAX_REDIRECTS = 5;
/** Pauses before a busy hub is asked again. */
const PAUSES_MS = [1000, 4000];

const { version } = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8')) as { version: string };

/**
 * The files of a repository with their hashes, and the licence that it declares.
 *
 * @throws {XpatchError} DOWNLOAD_DENIED, DOWNLOAD_FAILED, FILE_NOT_FOUND
 */
export async function listRepo(source: HubSource): Promise<Listing> {
  const { user, repo, revision } = source;
  const url = new URL(`api/models/${user}/${repo}/revision/${encodeURIComponent(revision)}?blobs=true`, hubEndpoint());
  const { response } = await ask(url, 'GET', source);
  const text = await readBounded(response);
  const failed = (why: string) =>
    new XpatchError('DOWNLOAD_FAILED', `${url.host} answered what cannot be used: ${why}.`);
  let answer: Answer;
  try {
    answer = JSON.parse(text) as Answer;
  } catch {
    throw failed('no JSON. Is there a login page of your network before it, or is HF_ENDPOINT wrong?');
  }
  if (typeof answer?.sha !== 'string' || !/^[0-9a-f]{7,64}$/.test(answer.sha) || !Array.isArray(answer.siblings)) {
    throw failed('no list of files');
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

/**
 * Asks the hub where a file is. It mostly answers with an address elsewhere that is good for some minutes or hours.
 *
 * @throws {XpatchError} as listRepo
 */
export async function locateFile(source: HubSource, commit: string, path: string): Promise<FileLocation> {
  const way = path.split('/').map(encodeURIComponent).join('/');
  const url = new URL(`${source.user}/${source.repo}/resolve/${commit}/${way}`, hubEndpoint());
  const { response, url: last, elsewhere } = await ask(url, 'HEAD', source);
  const size = response.headers.get('x-linked-size') ?? (elsewhere ? null : response.headers.get('content-length'));
  return {
    url: (elsewhere ?? last).href,
    headers: elsewhere ? {} : headersFor(last),
    ...(size !== null && /^\d+$/.test(size) && { size: Number(size) }),
  };
}

interface Reached {
  readonly response: Response;
  readonly url: URL;
  /** Where a HEAD was sent to another server; it is not followed. */
  readonly elsewhere?: URL;
}

async function ask(first: URL, method: 'GET' | 'HEAD', source: HubSource): Promise<Reached> {
  let url = first;
  let redirects = 0;
  for (let attempt = 0; ; ) {
    const response = await send(url, method);
    const { status } = response;
    const target = response.headers.get('location');
    if (status >= 300 && status < 400 && target && URL.canParse(target, url.href)) {
      const next = new URL(target, url);
      if (next.protocol !== 'https:' && next.protocol !== url.protocol) {
        throw new XpatchError(
          'DOWNLOAD_FAILED',
          `${url.host} leads from https: to ${next.protocol}, which is refused.`,
        );
      }
      if (method === 'HEAD' && next.origin !== hubEndpoint().origin) return { response, url, elsewhere: next };
      if (++redirects > MAX_REDIRECTS) throw new XpatchError('DOWNLOAD_FAILED', `${first.host} leads in circles.`);
      url = next;
      continue;
    }
    if (response.ok) return { response, url };
    const pause = PAUSES_MS[attempt++];
    if ((status !== 429 && status < 500) || pause === undefined) throw statusError(status, source, response);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

async function send(url: URL, method: string): Promise<Response> {
  try {
    return await fetch(url, {
      method,
      redirect: 'manual',
      headers: { 'accept-encoding': 'identity', 'user-agent': `xpatch/${version}`, ...headersFor(url) },
      signal: AbortSignal.timeout(patienceMs()),
    });
  } catch (cause) {
    throw unreachable(url.host, cause);
  }
}

/** The token goes to the hub only, and never readable on the way. */
function headersFor(url: URL): Record<string, string> {
  const safe = url.protocol === 'https:' || /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(url.hostname);
  const token = safe && url.origin === hubEndpoint().origin ? hubToken() : undefined;
  return token === undefined ? {} : { authorization: `Bearer ${token}` };
}

async function readBounded(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const chunk of response.body ?? []) {
      length += chunk.length;
      if (length > MAX_LISTING) throw new Error(`it is longer than ${MAX_LISTING} bytes`);
      chunks.push(chunk);
    }
  } catch (cause) {
    throw unreachable(new URL(response.url).host, cause);
  }
  return Buffer.concat(chunks).toString('utf8');
}

export function unreachable(host: string, cause: unknown): XpatchError {
  const inner = (cause as Error).cause as NodeJS.ErrnoException | undefined;
  const why = inner?.code ?? inner?.message ?? (cause as Error).message;
  return new XpatchError(
    'DOWNLOAD_FAILED',
    `${host} cannot be reached (${printable(String(why))}). Check the network; behind a proxy set HTTPS_PROXY, for a mirror HF_ENDPOINT. What was downloaded before is kept, and models that are complete need no network.`,
    { cause },
  );
}

/** An answer that is no success, in words. */
export function statusError(status: number, source: HubSource, response?: Response): XpatchError {
  const name = formatHubSource({ ...source, file: undefined, quantisation: undefined });
  const page = new URL(`${source.user}/${source.repo}`, hubEndpoint()).href;
  const detail = response?.headers.get('x-error-message');
  const said = detail ? ` It says: ${printable(detail)}` : '';
  if (status === 401 || status === 403) {
    const token = hubToken()
      ? 'Your token (HF_TOKEN) gives no access.'
      : 'Set HF_TOKEN to a token of yours if you have access.';
    const message = `The hub refuses ${name} (${status}): it is gated, private, or not there. Accept its conditions at ${page}, or check the name. ${token}${said}`;
    return new XpatchError('DOWNLOAD_DENIED', message);
  }
  if (status === 404)
    return new XpatchError('FILE_NOT_FOUND', `The hub has no ${name}. Check the name at ${page}.${said}`);
  const wait = status === 429 || status >= 500 ? ' Try again later: what was downloaded is kept.' : '';
  return new XpatchError('DOWNLOAD_FAILED', `The hub answered ${status} for ${name}.${wait}${said}`);
}

/** What a server says, in one line. */
function printable(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ').slice(0, 300);
}
