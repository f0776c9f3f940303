import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { XpatchError } from '../../util/errors.js';
import { indexPage } from './page.js';
import { findRuns, openRunFile, type Run, type RunEntry, readRun } from './runs.js';

/** A server of run folders; see `serveRuns`. */
export interface RunServer {
  /** Address of the list, such as `http://127.0.0.1:40321/`. */
  readonly url: string;
  /** What was there when it started. */
  readonly runs: readonly Run[];
  /** Stops at once; requests under way are cut. */
  close(): Promise<void>;
}

const LOOPBACK = '127.0.0.1';
const HEADERS = {
  'Cache-Control': 'no-store',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
};

/**
 * A report brings a policy of its own. This one holds whatever the file says: nothing is loaded from anywhere, and the page
 * has an origin of its own, so that the script of one report cannot read another.
 */
const FILE_POLICY =
  "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/**
 * Serves the runs in some folders to browsers on this machine: a list, their reports, figures and tables. The folders are read again for every request. Nothing else is served, nothing is written, and only requests
 * that name this machine in their Host header are answered, so that no web page can reach the server under a name of its own.
 *
 * @param roots run folders, or folders with runs at most two levels deep
 * @param options.port Defaults to a free one
 * @throws {XpatchError} FILE_NOT_FOUND, RUN_INVALID as `findRuns`; PORT_UNAVAILABLE
 */
export async function serveRuns(roots: readonly string[], { port = 0 } = {}): Promise<RunServer> {
  const runs = await readRuns(await findRuns(roots));
  const server = createServer((request, response) => {
    answer(roots, request, response)
      .catch((error: Error) => problem(response, error))
      // The browser went away, or a file changed while it was sent: nothing can be said any more.
      .catch(() => response.destroy());
  });
  await listen(server, port);
  const address = server.address() as AddressInfo;
  return {
    url: `http://${LOOPBACK}:${address.port}/`,
    runs,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

async function readRuns(entries: readonly RunEntry[]): Promise<Run[]> {
  const runs: Run[] = [];
  for (const entry of entries) runs.push(await readRun(entry));
  return runs;
}

/** The runs that are there now: unlike at the start, folders may have gone. */
async function presentRuns(roots: readonly string[]): Promise<RunEntry[]> {
  const found = new Map<string, RunEntry>();
  for (const root of roots) {
    for (const entry of await findRuns([root]).catch(() => [])) found.set(entry.id, entry);
  }
  return [...found.values()];
}

function listen(server: Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const reason = cause.code === 'EADDRINUSE' ? 'is taken' : `cannot be opened: ${cause.message}`;
      const message = `Port ${port} of ${LOOPBACK} ${reason}. Name another --port, or leave it out for a free one.`;
      reject(new XpatchError('PORT_UNAVAILABLE', message, { cause }));
    });
    server.listen({ host: LOOPBACK, port, exclusive: true }, resolve);
  });
}

async function answer(roots: readonly string[], request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { port } = request.socket.address() as AddressInfo;
  const hosts = [LOOPBACK, 'localhost'].flatMap((host) => (port === 80 ? [host, `${host}:80`] : [`${host}:${port}`]));
  if (!hosts.includes(request.headers.host ?? '')) {
    return say(response, 421, `This server answers only to http://${LOOPBACK}:${port}/.`);
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('Allow', 'GET, HEAD');
    return say(response, 405, 'This server accepts only GET and HEAD.');
  }
  const [path = ''] = (request.url ?? '').split('?', 1);
  // Browsers ask for it by themselves.
  if (path === '/favicon.ico') return void response.writeHead(204, HEADERS).end();
  const entries = await presentRuns(roots);
  if (path === '/') {
    const { html, policy } = await indexPage(await readRuns(entries));
    response.setHeader('Content-Security-Policy', policy);
    response.setHeader('Content-Length', Buffer.byteLength(html));
    response.writeHead(200, { ...HEADERS, 'Content-Type': 'text/html; charset=utf-8' }).end(html);
    return;
  }
  const [, id, file] = /^\/runs\/([\w-]+)\/(.+)$/.exec(path) ?? [];
  const entry = entries.find((run) => run.id === id);
  if (entry === undefined || file === undefined) {
    throw new XpatchError('FILE_NOT_FOUND', 'There is no such page, or its run is gone. Go back to the list.');
  }
  await sendFile(response, entry, decode(file));
}

function decode(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch (cause) {
    throw new XpatchError('FILE_NOT_FOUND', 'There is no such page.', { cause });
  }
}

async function sendFile(response: ServerResponse, entry: RunEntry, name: string): Promise<void> {
  const { handle, size, type } = await openRunFile(entry, name);
  try {
    response.setHeader('Content-Security-Policy', FILE_POLICY);
    response.setHeader('Content-Length', size);
    response.writeHead(200, { ...HEADERS, 'Content-Type': type });
    if (response.req.method === 'HEAD' || size === 0) return void response.end();
    await pipeline(handle.createReadStream({ autoClose: false, start: 0, end: size - 1 }), response);
  } finally {
    await handle.close();
  }
}

function say(response: ServerResponse, status: number, message: string): void {
  response.writeHead(status, { ...HEADERS, 'Content-Type': 'text/plain; charset=utf-8' }).end(`${message}\n`);
}

/** What is said of a request that failed, unless its answer is already under way. */
function problem(response: ServerResponse, error: Error): void {
  if (response.headersSent) throw error;
  if (error instanceof XpatchError) say(response, 404, `${error.code}: ${error.message}`);
  else say(response, 500, `UNEXPECTED: ${error.message}`);
}
