import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { XpatchError } from '../../util/errors.js';
import { manifestDifferences, mergeTables } from './compare.js';
import { type Comparison, comparePage, indexPage, problemPage, renderPage, runPage, type ViewPage } from './page.js';
import { findRuns, listRunFiles, openRunFile, type Run, type RunEntry, readRun, readRunText } from './runs.js';
import { viewStyle } from './style.js';

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
/** A report is under 5 MB, its tables are far smaller; more of them is not compared. */
const MAX_REPORT_BYTES = 16 * 2 ** 20;
const MAX_TABLE_BYTES = 2 ** 20;

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
  "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/**
 * Serves the runs in some folders to browsers on this machine: a list, their reports, figures and tables, and two of them
 * side by side. The folders are read anew for every request. Nothing else is served, nothing is written, and only requests
 * that name this machine in their Host header are answered, so that no web page can reach the server under a name of its own.
 *
 * @param roots run folders, or folders with runs at most two levels deep
 * @param options.port Defaults to a free one
 * @throws {XpatchError} FILE_NOT_FOUND, RUN_INVALID as `findRuns`; PORT_UNAVAILABLE
 */
export async function serveRuns(roots: readonly string[], { port = 0 } = {}): Promise<RunServer> {
  const runs = await readRuns(await findRuns(roots));
  const style = await viewStyle();
  const server = createServer((request, response) => {
    answer(roots, request, response)
      .catch((error: Error) => problem(response, error))
      .then((page) => page && send(response, page, style))
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

/** @returns the page to send; undefined when everything has been sent */
async function answer(
  roots: readonly string[],
  request: IncomingMessage,
  response: ServerResponse,
): Promise<ViewPage | undefined> {
  const { port } = request.socket.address() as AddressInfo;
  const hosts = [LOOPBACK, 'localhost'].flatMap((host) => (port === 80 ? [host, `${host}:80`] : [`${host}:${port}`]));
  if (!hosts.includes(request.headers.host ?? '')) {
    return refuse(response, 421, `This server answers to http://${LOOPBACK}:${port}/ only.`);
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('Allow', 'GET, HEAD');
    return refuse(response, 405, 'This server only takes GET and HEAD.');
  }
  const [path = '', query = ''] = (request.url ?? '').split('?', 2);
  const parameters = new URLSearchParams(query);
  const entries = await presentRuns(roots);
  if (path === '/') return indexPage(await readRuns(entries), parameters.get('sort') ?? '-started');
  if (path === '/compare') {
    const chosen = (side: string) => readRun(entryOf(entries, parameters.get(side) ?? ''));
    return comparePage(await compare(await chosen('left'), await chosen('right')));
  }
  // Browsers ask for it by themselves.
  if (path === '/favicon.ico') return void response.writeHead(204, HEADERS).end();
  const [, id, file] = /^\/runs\/([\w-]+)\/(.*)$/.exec(path) ?? [];
  if (id === undefined || file === undefined) throw new XpatchError('FILE_NOT_FOUND', 'There is no such page.');
  const entry = entryOf(entries, id);
  if (file === '') return runPage(await readRun(entry), await listRunFiles(entry));
  return sendFile(response, entry, decode(file));
}

function entryOf(entries: readonly RunEntry[], id: string): RunEntry {
  const entry = entries.find((run) => run.id === id);
  if (entry) return entry;
  throw new XpatchError('FILE_NOT_FOUND', `There is no run ${JSON.stringify(id)} any more. Choose one from the list.`);
}

function decode(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch (cause) {
    throw new XpatchError('FILE_NOT_FOUND', 'There is no such page.', { cause });
  }
}

async function compare(left: Run, right: Run): Promise<Comparison> {
  const [ours, theirs] = [await listRunFiles(left), await listRunFiles(right)];
  const shared = ours.filter((name) => /^tables\/.*\.csv$/.test(name) && theirs.includes(name));
  const tables: Comparison['tables'][number][] = [];
  for (const file of shared) {
    const texts = await Promise.all([left, right].map((run) => readRunText(run, file, MAX_TABLE_BYTES))).catch(
      () => [],
    );
    const [a, b] = texts;
    const merged = a === undefined || b === undefined ? undefined : mergeTables(a, b);
    tables.push({ name: file.replace(/^tables\/(.*)\.csv$/, '$1'), merged });
  }
  const differences = manifestDifferences(left.manifest, right.manifest);
  return { left, right, differences, tables, blocks: { left: await blocksOf(left), right: await blocksOf(right) } };
}

/** The ids of the sections of a report. */
async function blocksOf(run: Run): Promise<string[]> {
  if (!run.hasReport) return [];
  const html = await readRunText(run, 'report.html', MAX_REPORT_BYTES).catch(() => '');
  return [...new Set([...html.matchAll(/<section id="([\w.-]{1,100})"/g)].map(([, id]) => id as string))];
}

function send(response: ServerResponse, page: ViewPage, style: string): void {
  const { html, policy } = renderPage(page, style);
  response.setHeader('Content-Security-Policy', policy);
  response.setHeader('Content-Type', 'text/html; charset=utf-8');
  response.setHeader('Content-Length', Buffer.byteLength(html));
  response.writeHead(response.statusCode, HEADERS).end(html);
}

async function sendFile(response: ServerResponse, entry: RunEntry, name: string): Promise<undefined> {
  const { handle, size, type } = await openRunFile(entry, name);
  try {
    response.setHeader('Content-Security-Policy', FILE_POLICY);
    response.setHeader('Content-Type', type);
    response.setHeader('Content-Length', size);
    response.writeHead(200, HEADERS);
    if (response.req.method === 'HEAD' || size === 0) return void response.end();
    await pipeline(handle.createReadStream({ autoClose: false, start: 0, end: size - 1 }), response);
  } finally {
    await handle.close();
  }
}

/** For programs: whoever comes by a wrong name is told nothing else. */
function refuse(response: ServerResponse, status: number, message: string): undefined {
  response.setHeader('Content-Type', 'text/plain; charset=utf-8');
  response.writeHead(status, HEADERS).end(`${message}\n`);
}

/** The page about a request that failed, unless its answer is already under way. */
function problem(response: ServerResponse, error: Error): ViewPage {
  if (response.headersSent) throw error;
  const known = error instanceof XpatchError;
  response.statusCode = known ? 404 : 500;
  return problemPage(known ? error.code : 'UNEXPECTED', error.message);
}
