import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Dispatcher, Pool, Response } from 'undici';
import { XpatchError } from '../util/errors.js';
import { PACKAGE_ROOT } from '../util/package-root.js';
import { proxyFor } from './proxy.js';

/** Milliseconds without an answer or a byte: HF_HUB_DOWNLOAD_TIMEOUT in seconds. Defaults to 60 s. */
function patienceMs(): number {
  const seconds = Number(process.env.HF_HUB_DOWNLOAD_TIMEOUT);
  return seconds > 0 ? seconds * 1000 : 60_000;
}

const { version } = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8')) as { version: string };

type Agents = Pick<typeof import('undici'), 'Agent' | 'Pool' | 'ProxyAgent'>;

/** By the proxy that they go through and their patience; connections are kept for some seconds. */
const agents = new Map<string, Dispatcher>();

/**
 * Asks a server, through the proxy that the environment names for it. Redirections are not followed.
 *
 * undici is the library behind Node's fetch. It is a dependency because the agents of one release of it do not fit the fetch of
 * another, and Node's own fetch knows proxies only from 22.21 and 24.5 on.
 *
 * @throws {XpatchError} DOWNLOAD_FAILED
 */
export async function send(url: URL, headers: Record<string, string>, signal?: AbortSignal): Promise<Response> {
  try {
    const undici = await import('undici'); // only here: most commands need no network
    const proxy = proxyFor(url);
    const patience = patienceMs();
    const key = `${patience} ${proxy?.href}`;
    const agent = agents.get(key) ?? makeAgent(undici, proxy, patience);
    agents.set(key, agent);
    return await undici.fetch(url, {
      dispatcher: agent,
      redirect: 'manual',
      headers: { 'accept-encoding': 'identity', 'user-agent': `xpatch/${version}`, ...headers },
      signal: signal ?? null,
    });
  } catch (cause) {
    throw unreachable(url.host, cause);
  }
}

function makeAgent({ Agent, Pool, ProxyAgent }: Agents, proxy: URL | undefined, patience: number): Dispatcher {
  const timeouts = { headersTimeout: patience, bodyTimeout: patience };
  if (!proxy) return new Agent(timeouts);
  const user = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`;
  return new ProxyAgent({
    uri: proxy.href,
    ...(proxy.username && { token: `Basic ${Buffer.from(user).toString('base64')}` }),
    ...timeouts,
    clientFactory: (origin, options) => withoutRetries(new Pool(origin, { ...options, ...timeouts }), proxy),
  });
}

/** undici takes a connection that is closed for one that will come back, and would ask forever; of a refusal it loses the status. */
function withoutRetries(pool: Pool, { host }: URL): Pool {
  const connect = pool.connect.bind(pool) as (options: Dispatcher.ConnectOptions) => Promise<Dispatcher.ConnectData>;
  const once = async (options: Dispatcher.ConnectOptions) => {
    const answer = await connect(options).catch((cause: Error) => {
      throw new Error(`cannot connect to the proxy ${host}: ${cause.message}`, { cause });
    });
    if (answer.statusCode === 200) return answer;
    answer.socket.destroy();
    throw new Error(`the proxy ${host} answered ${answer.statusCode}`);
  };
  return Object.assign(pool, { connect: once });
}

/** The bytes of an answer as they come. @throws {XpatchError} DOWNLOAD_FAILED when they end early or come no more */
export async function* bytesOf(response: Response, { host }: URL): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of response.body ?? []) yield chunk as Uint8Array;
  } catch (cause) {
    throw unreachable(host, cause);
  }
}

/** DOWNLOAD_FAILED, with what can be done about it. */
function unreachable(host: string, cause: unknown): XpatchError {
  const inner = ((cause as Error).cause ?? cause) as NodeJS.ErrnoException;
  if (/^UND_ERR_(HEADERS|BODY)_TIMEOUT$/.test(inner.code ?? '')) {
    const message = `Nothing has arrived from ${host} for ${patienceMs() / 1000} s. What has arrived is kept: run the same command again to resume.`;
    return new XpatchError('DOWNLOAD_FAILED', message, { cause });
  }
  // the codes of undici say less than its words
  const why = printable(/^E[A-Z]/.test(inner.code ?? '') ? String(inner.code) : inner.message);
  return new XpatchError(
    'DOWNLOAD_FAILED',
    `${host} cannot be reached (${why}). Check the network; behind a proxy set HTTPS_PROXY, for a mirror HF_ENDPOINT. What was already downloaded is kept, and complete models need no network.`,
    { cause },
  );
}

/** What a server says, in one line. */
export function printable(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ').slice(0, 300);
}
