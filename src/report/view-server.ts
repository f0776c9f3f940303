import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { XpatchError } from '../errors.js';
import { manifestDifferences, mergeTables } from './view-compare.js';
import { type Comparison, comparePage, indexPage, problemPage, runPage, type ViewPage } from './view-page.js';
import { findRuns, listRunFiles, openRunFile, type Run, type RunEntry, readRun, readRunText } from './view-runs.js';

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
  const runs = await readRuns(roots);
  const server = createServer((request, response) => {
    answer(roots, request, response).catch((error: Error) => fail(response, error));
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

async function readRuns(roots: readonly string[]): Promise<Run[]> {
  const runs: Run[] = [];
  for (const entry of await findRuns(roots)) runs.push(await readRun(entry));
  return runs;
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
    return refuse(response, 421, `This server answers to http://${LOOPBACK}:${port}/ only.`);
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('Allow', 'GET, HEAD');
    return refuse(response, 405, 'This server only takes GET and HEAD.');
  }
  const [path = '', query = ''] = (request.url ?? '').split('?', 2);
  const parameters = new URLSearchParams(query);
  if (path === '/') return send(response, indexPage(await readRuns(roots), parameters.get('sort') ?? undefined));
  if (path === '/compare') {
    const entries = await findRuns(roots);
    const [left, right] = ['left', 'right'].map((side) => entryOf(entries, parameters.get(side) ?? ''));
    return send(response, comparePage(await compare(left as RunEntry, right as RunEntry)));
  }
  // Browsers ask for it by themselves.
  if (path === '/favicon.ico') return void response.writeHead(204, HEADERS).end();
  const [, id, file] = /^\/runs\/([\w-]+)\/(.*)$/.exec(path) ?? [];
  if (id === undefined || file === undefined) throw new XpatchError('FILE_NOT_FOUND', 'There is no such page.');
  const entry = entryOf(await findRuns(roots), id);
  if (file === '') return send(response, runPage(await readRun(entry), await listRunFiles(entry)));
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

async function compare(leftEntry: RunEntry, rightEntry: RunEntry): Promise<Comparison> {
  const [left, right] = [await readRun(leftEntry), await readRun(rightEntry)];
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

/** The names of the blocks of a report, which its page gives as ids. */
async function blocksOf(run: Run): Promise<string[]> {
  if (!run.hasReport) return [];
  const html = await readRunText(run, 'report.html', MAX_REPORT_BYTES).catch(() => '');
  return [...new Set([...html.matchAll(/<\w+[^<>]*\sid="block-([^"<>&]{1,100})"/g)].map(([, name]) => name as string))];
}

function send(response: ServerResponse, { html, policy }: ViewPage, status = 200): void {
  const body = Buffer.from(html);
  response.writeHead(status, {
    ...HEADERS,
    'Content-Security-Policy': policy,
    'Content-Type': 'text/html; charset=utf-8',
    'Content-Length': body.length,
  });
  response.end(body);
}

async function sendFile(response: ServerResponse, entry: RunEntry, name: string): Promise<void> {
  const { handle, size, type } = await openRunFile(entry, name);
  try {
    response.writeHead(200, {
      ...HEADERS,
      'Content-Security-Policy': FILE_POLICY,
      'Content-Type': type,
      'Content-Length': size,
    });
    if (response.req.method === 'HEAD' || size === 0) return void response.end();
    await pipeline(handle.createReadStream({ autoClose: false, start: 0, end: size - 1 }), response);
  } finally {
    await handle.close();
  }
}

/** For programs: whoever comes by a wrong name is told nothing else. */
function refuse(response: ServerResponse, status: number, message: string): void {
  response.writeHead(status, { ...HEADERS, 'Content-Type': 'text/plain; charset=utf-8' }).end(`${message}\n`);
}

function fail(response: ServerResponse, error: Error): void {
  // The browser went away, or the file changed while it was sent: nothing can be said any more.
  if (response.headersSent) return void response.destroy();
  const known = error instanceof XpatchError;
  const page = problemPage(known ? error.code : 'UNEXPECTED', error.message);
  send(response, page, known ? 404 : 500);
}
