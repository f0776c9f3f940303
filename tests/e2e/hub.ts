import { createHash, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, connect } from 'node:net';

/** How the servers misbehave with a file. */
export interface Faults {
  /** Each answer ends after so many bytes, as often as `cuts` says. */
  cutAfter?: number;
  cuts?: number;
  /** A byte of the content is another one. */
  corrupt?: boolean;
  /** Nothing comes any more after so many bytes of the file. */
  stallAfter?: number;
  /** The server knows no ranges: every answer is the whole file. */
  whole?: boolean;
  /** The server sends another part than was asked for. */
  shift?: number;
  /** Milliseconds between pieces of 64 KiB. */
  slow?: number;
  /** The address that the hub gives is good for so many requests, then there is a 403. */
  uses?: number;
  /** Status instead of the file's address. */
  status?: number;
  /** The hub says that the file has so many bytes, when asked for it or in its list. */
  saysSize?: number;
  listsSize?: number;
}

export interface HubRepo {
  readonly files: Record<string, Buffer>;
  licence?: string;
  gated?: false | 'auto' | 'manual';
  /** Status of the list of files. */
  status?: number;
  /** Only who sends this gets anything. */
  token?: string;
  readonly faults?: Record<string, Faults>;
}

export interface Asked {
  readonly server: 'hub' | 'files' | 'proxy';
  readonly method: string;
  readonly url: string;
  readonly authorization?: string;
  readonly proxyAuthorization?: string;
  readonly range?: string;
}

/**
 * A hub on this machine: one server that knows repositories and where their files are, another one (of another origin) that
 * has the files, and a proxy that both can be reached through. Its protocol is the Hugging Face hub's, as its client library speaks it.
 */
export class FakeHub {
  readonly asked: Asked[] = [];
  /** What the proxy answers to who asks for a connection. */
  proxyStatus = 200;
  readonly repos: Record<string, HubRepo> = {};
  private readonly addresses = new Map<string, { repo: HubRepo; path: string; left: number }>();
  private readonly hub = createServer((request, response) => this.answer(request, response));
  private readonly files = createServer((request, response) => this.serve(request, response));
  private readonly proxy = createServer();

  static async start(): Promise<FakeHub> {
    const hub = new FakeHub();
    hub.proxy.on('connect', (request, socket, head) => {
      hub.note('proxy', request);
      if (hub.proxyStatus !== 200) return void socket.end(`HTTP/1.1 ${hub.proxyStatus} No\r\n\r\n`);
      const [host, port] = String(request.url).split(':');
      const other = connect(Number(port), host, () => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n');
        other.write(head);
        other.pipe(socket).pipe(other);
      });
      for (const end of [socket, other]) end.on('error', () => other.destroy());
    });
    for (const server of [hub.hub, hub.files, hub.proxy]) {
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    }
    return hub;
  }

  /** What a command needs in its environment to ask this hub, with a cache of its own. */
  env(cache: string): NodeJS.ProcessEnv {
    return { ...NO_PROXY, HF_ENDPOINT: this.url, HF_HOME: `${cache}-hf`, XPATCH_MODELS: cache };
  }

  get url(): string {
    return origin(this.hub);
  }

  get proxyUrl(): string {
    return origin(this.proxy);
  }

  forget(): void {
    this.asked.length = 0;
  }

  /** Bytes of a file that were asked for, those asked for twice counted once. */
  get bytesAsked(): number {
    let [sum, end] = [0, 0];
    const ranges = this.asked.flatMap(({ range = '' }) => [...range.matchAll(/^bytes=(\d+)-(\d+)$/g)]);
    for (const [from, to] of ranges
      .map(([, a, b]) => [Number(a), Number(b) + 1] as const)
      .sort((a, b) => a[0] - b[0])) {
      sum += Math.max(0, to - Math.max(from, end));
      end = Math.max(end, to);
    }
    return sum;
  }

  /** How often files were asked for, the requests for their bytes counted only. */
  requests(server: Asked['server']): number {
    return this.asked.filter((one) => one.server === server).length;
  }

  async stop(): Promise<void> {
    for (const server of [this.hub, this.files, this.proxy]) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  private async send(response: ServerResponse, content: Buffer, faults: Faults, first: number): Promise<void> {
    const STEP = 64 << 10;
    for (let at = 0; at < content.length; at += STEP) {
      if (response.destroyed) return;
      if (faults.stallAfter !== undefined && first + at >= faults.stallAfter) return;
      if (faults.cutAfter !== undefined && at >= faults.cutAfter && (faults.cuts ?? 0) > 0) {
        faults.cuts = (faults.cuts ?? 0) - 1;
        response.destroy();
        return;
      }
      const flushed = await new Promise((resolve) => response.write(content.subarray(at, at + STEP), resolve));
      if (flushed instanceof Error) return;
      if (faults.slow) await new Promise((resolve) => setTimeout(resolve, faults.slow));
    }
    response.end();
  }

  private note(server: Asked['server'], { method = '', url = '', headers }: IncomingMessage): void {
    const { authorization, range } = headers;
    this.asked.push({ server, method, url, authorization, proxyAuthorization: headers['proxy-authorization'], range });
  }

  private answer(request: IncomingMessage, response: ServerResponse): unknown {
    this.note('hub', request);
    const { pathname, searchParams } = new URL(String(request.url), this.url);
    const [, name = ''] = /^\/(?:api\/(?:resolve-cache\/)?models\/)?([^/]+\/[^/]+)\//.exec(pathname) ?? [];
    const repo = this.repos[name];
    const fail = (status: number, message: string) => {
      response.writeHead(status, { 'x-error-message': message }).end();
    };
    if (!repo) return fail(request.headers.authorization ? 404 : 401, 'Invalid username or password.');
    if (repo.status) return fail(repo.status, 'Not today');
    if (repo.token && request.headers.authorization !== `Bearer ${repo.token}`) {
      return fail(repo.gated ? 403 : 401, `Access to model ${name} is restricted`);
    }
    const [, small = ''] = /^\/api\/resolve-cache\/models\/[^/]+\/[^/]+\/[^/]+\/(.*)$/.exec(pathname) ?? [];
    if (small !== '') {
      const body = repo.files[decodeURIComponent(small)] as Buffer;
      return response.writeHead(200, { 'content-length': body.length }).end(body);
    }
    if (pathname.startsWith('/api/')) {
      if (searchParams.get('blobs') !== 'true') return fail(400, 'blobs');
      response.setHeader('content-type', 'application/json');
      return response.end(JSON.stringify(describe(name, repo)));
    }
    const [, commit, path] = /\/resolve\/([^/]+)\/(.*)$/.exec(pathname) ?? [];
    const content = path && repo.files[decodeURIComponent(path)];
    if (commit !== COMMIT || !content) return fail(404, 'Entry not found');
    const faults = repo.faults?.[path] ?? {};
    if (faults.status) return fail(faults.status, 'Gated');
    if (!isLarge(path)) {
      // As the hub does with what is in git itself: from a place of its own, named by a path.
      const place = `/api/resolve-cache/models/${name}/${commit}/${path}`;
      return response.writeHead(307, { location: place }).end();
    }
    const key = randomBytes(8).toString('hex');
    this.addresses.set(key, { repo, path: decodeURIComponent(path), left: faults.uses ?? Number.POSITIVE_INFINITY });
    return response
      .writeHead(302, {
        location: `${origin(this.files)}/blobs/${key}?signed=1`,
        'x-linked-size': faults.saysSize ?? content.length,
        'x-linked-etag': `"${sha256(content)}"`,
        'x-repo-commit': COMMIT,
      })
      .end();
  }

  private serve(request: IncomingMessage, response: ServerResponse): void {
    this.note('files', request);
    const address = this.addresses.get(/\/blobs\/(\w+)/.exec(String(request.url))?.[1] ?? '');
    if (!address || address.left-- <= 0) {
      response.writeHead(403).end();
      return;
    }
    const { repo, path } = address;
    const faults = repo.faults?.[path] ?? {};
    const content = Buffer.from(repo.files[path] as Buffer);
    if (faults.corrupt) content[content.length - 1] = (content.at(-1) as number) ^ 1;
    const [, from = 0, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const whole = to === undefined || faults.whole;
    const first = whole ? 0 : Number(from) + (faults.shift ?? 0);
    const piece = whole ? content : content.subarray(first, Number(to) + 1);
    response.writeHead(whole ? 200 : 206, {
      'accept-ranges': whole ? 'none' : 'bytes',
      'content-length': piece.length,
      ...(!whole && { 'content-range': `bytes ${first}-${to}/${content.length}` }),
    });
    response.flushHeaders();
    void this.send(response, piece, faults, first);
  }
}

export const COMMIT = '0123456789abcdef0123456789abcdef01234567';

function describe(id: string, { files, licence, gated = false, faults }: HubRepo): object {
  const siblings = Object.entries(files).map(([rfilename, content]) => {
    const size = faults?.[rfilename]?.listsSize ?? content.length;
    const blobId = createHash('sha1').update(`blob ${size}\0`).update(content).digest('hex');
    const large = isLarge(rfilename);
    return { rfilename, size, blobId, ...(large && { lfs: { sha256: sha256(content), size, pointerSize: 134 } }) };
  });
  return { id, sha: COMMIT, gated, siblings, ...(licence && { cardData: { license: licence } }), tags: [] };
}

/** Kept with Git LFS. */
function isLarge(path: string): boolean {
  return /\.(gguf|safetensors)$/.test(path);
}

export function sha256(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}

function origin(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Whatever the machine that runs the tests has set. */
const NO_PROXY = Object.fromEntries(
  [
    'HTTP_PROXY',
    'HTTPS_PROXY',
    'ALL_PROXY',
    'NO_PROXY',
    'HF_TOKEN',
    'HF_TOKEN_PATH',
    'HF_HUB_OFFLINE',
    'MODEL_ENDPOINT',
  ]
    .flatMap((name) => [name, name.toLowerCase()])
    .map((name) => [name, '']),
);
