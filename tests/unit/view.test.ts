// The server of run folders by real requests, and what its pages say of hostile and broken folders.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { type IncomingHttpHeaders, request } from 'node:http';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { findRuns, readRun } from '../../src/report/view/runs.js';
import { type RunServer, serveRuns } from '../../src/report/view/server.js';
import { expectError, temporaryFolder } from './helpers.js';

const folder = realpathSync(await temporaryFolder());
const runs = join(folder, 'runs');
const manifest = {
  status: 'complete',
  experiment: 'main-table',
  title: 'A run',
  command: 'xpatch demo',
  started: '2026-11-23T08:00:00.000Z',
  model: { name: 'tiny', hash: 'abc', nLayers: 2 },
};
const HOSTILE = '<script>alert(1)</script>"\'&\u202e\u0007';

function makeRun(path: string, content: string | object = manifest, report: string | undefined = '<h1>Report</h1>') {
  for (const name of ['tables', 'figures', 'vectors']) mkdirSync(join(path, name), { recursive: true });
  writeFileSync(join(path, 'manifest.json'), typeof content === 'string' ? content : JSON.stringify(content));
  if (report !== undefined) writeFileSync(join(path, 'report.html'), report);
  return path;
}

interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
}

let server: RunServer;
const servers: RunServer[] = [];
async function serve(...args: Parameters<typeof serveRuns>): Promise<RunServer> {
  const own = await serveRuns(...args);
  servers.push(own);
  return own;
}

/** One request, its path sent as it is written. */
function ask(path: string, options: { method?: string; headers?: Record<string, string>; server?: RunServer } = {}) {
  const { port } = new URL((options.server ?? server).url);
  const { method, headers } = options;
  return new Promise<Answer>((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path, method, headers, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        body += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }));
    });
    sent.on('error', reject).end();
  });
}

const idOf = async (path: string) => (await findRuns([path]))[0]?.id as string;
const urlOf = async (name: string) => `/runs/${await idOf(join(runs, name))}/`;

beforeAll(async () => {
  const table = 'row,column,value,low,high,n,items\r\nText Patch,mean,0.5,0.4,0.6,10,5\r\n';
  const one = makeRun(join(runs, 'one'), manifest, '<section id="lenient">1</section><section id="only">2</section>');
  writeFileSync(join(one, 'tables', 'lenient.csv'), table);
  writeFileSync(join(one, 'tables', 'other.csv'), 'a,b\r\n1,2\r\n');
  writeFileSync(join(one, 'figures', 'sweep.svg'), '<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>');
  writeFileSync(join(one, 'figures', '50% & ü.png'), 'png');
  writeFileSync(join(one, 'figures', '.hidden.svg'), 'PRIVATE WORDS');
  writeFileSync(join(one, 'figures', 'page.html'), 'PRIVATE WORDS');
  writeFileSync(join(one, 'vectors', 'v.safetensors'), 'PRIVATE WORDS');
  writeFileSync(join(one, 'results.jsonl'), 'PRIVATE WORDS');
  writeFileSync(join(folder, 'secret.svg'), 'PRIVATE WORDS');
  symlinkSync(join(folder, 'secret.svg'), join(one, 'figures', 'link.svg'));
  symlinkSync(join(one, 'results.jsonl'), join(one, 'tables', 'inside.csv'));

  makeRun(
    join(runs, 'group', 'two'),
    { ...manifest, title: HOSTILE, model: { ...manifest.model, hash: 'def', [HOSTILE]: HOSTILE } },
    '<section id="lenient">2</section>',
  );
  makeRun(join(runs, 'running'), { ...manifest, status: 'running' });
  rmSync(join(runs, 'running', 'report.html'));
  server = await serve([runs]);
});
afterAll(() => Promise.all(servers.map((each) => each.close())));

describe('what is served', () => {
  test('the list, with the state of every run', async () => {
    const { status, headers, body } = await ask('/');
    expect({ status, type: headers['content-type'] }).toEqual({ status: 200, type: 'text/html; charset=utf-8' });
    expect(body.match(/<tr id=/g)).toHaveLength(3);
    expect(body).toContain('>A run</bdi></a>');
    expect(body).toContain('<time datetime="2026-11-23T08:00:00.000Z">2026-11-23 08:00 UTC</time>');
    expect(body).toContain('<td class="running">running</td>');
    for (const bad of ['<script', '\u202e', '\u0007']) expect(body).not.toContain(bad);
    expect(body).toContain('&lt;script&gt;');
  });

  test('the last run first', async () => {
    const paths = ['2026-11-21', '2026-11-23', '2026-11-22'].map((day) =>
      makeRun(join(folder, 'days', day), { ...manifest, title: day, started: `${day}T08:00:00.000Z` }),
    );
    const { body } = await ask('/', { server: await serve(paths) });
    const titles = [...body.matchAll(/<bdi>(2026-11-2\d)<\/bdi><\/a>/g)].map(([, title]) => title);
    expect(titles).toEqual(['2026-11-23', '2026-11-22', '2026-11-21']);
  });

  test('reports, figures, tables and the manifest, with their types and with headers that lock them up', async () => {
    const url = await urlOf('one');
    for (const [file, type] of [
      ['report.html', 'text/html; charset=utf-8'],
      ['manifest.json', 'application/json; charset=utf-8'],
      ['figures/sweep.svg', 'image/svg+xml; charset=utf-8'],
      ['figures/50%25%20%26%20%C3%BC.png', 'image/png'],
      ['tables/lenient.csv', 'text/csv; charset=utf-8'],
    ]) {
      const { status, headers, body } = await ask(url + file);
      expect({ file, status, type: headers['content-type'] }).toEqual({ file, status: 200, type });
      expect(body).toBe(readFileSync(join(runs, 'one', decodeURIComponent(file as string)), 'utf8'));
      expect(headers).toMatchObject({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' });
      expect(headers['content-security-policy']).toMatch(/^sandbox .*default-src 'none'.*frame-ancestors 'none'$/);
      expect(headers['content-security-policy']).not.toContain('allow-same-origin');
    }
  });

  test('the files of a run, by links that work', async () => {
    const { body } = await ask('/', { server: await serve([join(runs, 'one')]) });
    const links = [...body.matchAll(/<li><a href="([^"]*)"/g)].map(([, link]) => link as string);
    expect(links.map((link) => decodeURIComponent(link.split('/').slice(3).join('/')))).toEqual([
      'manifest.json',
      'report.html',
      'figures/50% & ü.png',
      'figures/sweep.svg',
      'tables/lenient.csv',
      'tables/other.csv',
    ]);
    for (const link of links) expect((await ask(link)).status).toBe(200);
  });

  test('HEAD as GET without the body', async () => {
    for (const path of ['/', `${await urlOf('one')}report.html`]) {
      const [get, head] = [await ask(path), await ask(path, { method: 'HEAD' })];
      expect(head).toMatchObject({ status: 200, body: '' });
      expect(head.headers['content-length']).toBe(String(Buffer.byteLength(get.body)));
    }
  });

  test('a run that appears while it serves', async () => {
    const late = makeRun(join(runs, 'late'), { ...manifest, title: 'Late' });
    expect((await ask('/')).body).toContain('>Late</bdi>');
    expect((await ask(`${await urlOf('late')}report.html`)).status).toBe(200);
    const url = await urlOf('late');
    rmSync(late, { recursive: true });
    expect((await ask('/')).body).not.toContain('>Late</bdi>');
    expect((await ask(url)).status).toBe(404);
  });

  test('what is left when a folder goes while it serves', async () => {
    const [gone, last] = ['gone', 'last'].map((name) => makeRun(join(folder, name), { ...manifest, title: name }));
    const own = await serve([gone as string, last as string, last as string]);
    expect((await ask('/', { server: own })).body.match(/<th scope="row"/g)).toHaveLength(2);
    rmSync(gone as string, { recursive: true });
    expect((await ask('/', { server: own })).body.match(/<th scope="row"/g)).toHaveLength(1);
    rmSync(last as string, { recursive: true });
    expect((await ask('/', { server: own })).body).toContain('They have gone.');
  });
});

describe('what is refused', () => {
  test.each([
    '..%2f..%2fsecret.svg',
    'figures/../../../secret.svg',
    'figures/..%2f..%2f..%2fsecret.svg',
    'figures/..%5c..%5csecret.svg',
    'figures/%2e%2e/manifest.json',
    'figures/link.svg',
    'tables/inside.csv',
    'figures/.hidden.svg',
    'figures/page.html',
    'figures/',
    'figures',
    'vectors/v.safetensors',
    'results.jsonl',
    'figures/sweep.svg%00.png',
    'figures/%E0%A4%A.svg',
    'tables//lenient.csv',
    'report.html/',
    '%2fetc%2fpasswd',
  ])('%s', async (file) => {
    const { status, body } = await ask((await urlOf('one')) + file);
    expect(status).toBe(404);
    expect(body).toContain('FILE_NOT_FOUND: ');
    expect(body).not.toContain('PRIVATE WORDS');
  });

  test('a folder inside a run that is a link', async () => {
    const run = makeRun(join(folder, 'linked', 'run'));
    rmSync(join(run, 'figures'), { recursive: true });
    symlinkSync(folder, join(run, 'figures'));
    const own = await serve([run]);
    expect((await ask(`/runs/${await idOf(run)}/figures/secret.svg`, { server: own })).status).toBe(404);
  });

  test('pages and runs that do not exist', async () => {
    for (const path of [
      '/nothing',
      '/runs/one/report.html',
      '/runs/',
      '/../../etc/passwd',
      '//etc/passwd',
      '*',
      '/%',
    ]) {
      expect({ path, status: (await ask(path)).status }).toEqual({ path, status: 404 });
    }
  });

  test('names of other machines, which is what DNS rebinding brings', async () => {
    const { port } = new URL(server.url);
    for (const [host, status] of [
      [`127.0.0.1:${port}`, 200],
      [`localhost:${port}`, 200],
      ['127.0.0.1', 421],
      [`evil.example:${port}`, 421],
      [`127.0.0.1.evil.example:${port}`, 421],
      [`127.0.0.1:${Number(port) - 1}`, 421],
    ] as const) {
      const answer = await ask('/', { headers: { host } });
      expect({ host, status: answer.status }).toEqual({ host, status });
      if (status === 421) expect(answer.body).not.toContain('A run');
    }
  });

  test('methods that would change something', async () => {
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
      expect(await ask('/', { method })).toMatchObject({ status: 405, headers: { allow: 'GET, HEAD' } });
    }
  });
});

describe('what is in a list', () => {
  test('a manifest of something else, as models, web apps and browser extensions have, is no run; what is below it may be', async () => {
    const root = join(folder, 'mixed');
    for (const [name, manifest] of [
      ['models', '{"demo.gguf": {"bytes": 1, "sha256": "0"}}'],
      ['app', '{"name": "app", "start_url": "/"}'],
    ] as const) {
      mkdirSync(join(root, name), { recursive: true });
      writeFileSync(join(root, name, 'manifest.json'), manifest);
    }
    const inside = makeRun(join(root, 'app', 'run'));
    const half = makeRun(join(root, 'half'), '{"status": ');
    expect((await findRuns([root])).map(({ path }) => path)).toEqual([inside, half]);
  });

  test('runs carry their prompt and their headline', async () => {
    const about = { status: 'running', title: 'Lens', headline: 'Tokyo 98.0 %' };
    const path = makeRun(join(folder, 'said', 'lens'), { ...about, options: { prompt: { text: 'Q:Japan\nA:' } } });
    const plain = makeRun(join(folder, 'said', 'script'), { ...about, headline: 7, options: { prompt: '<b>x</b>' } });
    const own = await serve([path, plain]);
    const { body } = await ask('/', { server: own });
    expect(body).toContain('<code><bdi>Q:Japan⏎A:</bdi></code>');
    expect(body.match(/<p class="headline"><bdi>Tokyo 98.0 %<\/bdi><\/p>/g)).toHaveLength(1);
    expect(body).toContain('<code><bdi>&lt;b&gt;x&lt;/b&gt;</bdi></code>');
  });
});

describe('broken folders are listed with what is wrong', () => {
  const deep = `${'['.repeat(50_000)}${']'.repeat(50_000)}`;
  test.each<[string, string | object, RegExp]>([
    ['no JSON', '{"status": ', /^RUN_INVALID: manifest\.json is not JSON: /],
    ['empty', '', /^RUN_INVALID: manifest\.json is not JSON: /],
    ['no object', '[]', /^RUN_INVALID: manifest\.json is not an object\.$/],
    ['no run of ours', '{"name": "web app"}', /^RUN_INVALID: The status .* none of running, complete/],
    [
      'huge',
      `{"x": "${'x'.repeat(5 << 20)}"}`,
      /^RUN_INVALID: manifest\.json has 5242889 bytes, more than the limit of 4194304/,
    ],
  ])('%s', async (name, content, problem) => {
    const path = makeRun(join(folder, 'broken', name), content);
    const [entry] = await findRuns([path]);
    const run = await readRun(entry as NonNullable<typeof entry>);
    expect(run).toMatchObject({ state: 'broken', title: name, problem: expect.stringMatching(problem) });
    const own = await serve([path]);
    const { status, body } = await ask('/', { server: own });
    expect({ status, told: body.includes('class="problem"><bdi>RUN_INVALID: ') }).toEqual({ status: 200, told: true });
  });

  test('a manifest that is a link, a folder or a pipe; a report that is missing', async () => {
    const problem = async (name: string, change: (file: string) => void) => {
      const path = makeRun(join(folder, 'odd', name));
      rmSync(join(path, 'manifest.json'));
      change(join(path, 'manifest.json'));
      const [entry] = await findRuns([path]);
      return (await readRun(entry as NonNullable<typeof entry>)).problem;
    };
    const unreadable = 'RUN_INVALID: The run has no file manifest.json that can be read.';
    expect(await problem('link', (file) => symlinkSync(join(runs, 'one', 'manifest.json'), file))).toBe(unreadable);
    expect(await problem('folder', (file) => mkdirSync(file))).toBe(unreadable);
    expect(await problem('pipe', (file) => execFileSync('mkfifo', [file]))).toBe(unreadable);
    const path = makeRun(join(folder, 'odd', 'no report'));
    rmSync(join(path, 'report.html'));
    const [entry] = await findRuns([path]);
    const complete = async () => (await readRun(entry as NonNullable<typeof entry>)).problem;
    expect(await complete()).toMatch(/complete but has no report\.html/);
    writeFileSync(join(path, 'report.html'), '');
    expect(await complete()).toMatch(/complete but has no report\.html/);
  });

  test('but a part of a run has none, and says which it is', async () => {
    const part = (name: string, more: object) => {
      const path = makeRun(join(folder, 'parts', name), JSON.stringify({ status: 'complete', title: name, ...more }));
      rmSync(join(path, 'report.html'));
    };
    part('v1', { shard: { index: 1, of: 4, stage: 'validation' } });
    part('t2', { shard: { index: 2, of: 4 }, layerFrom: 'v' });
    part('whole test', { shard: { index: 1, of: 1 } });
    const states = [];
    for (const entry of await findRuns([join(folder, 'parts')])) states.push(await readRun(entry));
    expect(states.map(({ title, state, part }) => [title, state, part])).toEqual([
      ['t2', 'complete', '2/4'],
      ['v1', 'complete', '1/4 of the validation'],
      ['whole test', 'broken', undefined],
    ]);
    const { body } = await ask('/', { server: await serve([join(folder, 'parts')]) });
    expect(body).toMatch(/Part <bdi>1\/4 of the validation<\/bdi>: merge all parts/);
  });

  test('values of the wrong type, and nesting without end', async () => {
    const odd = JSON.stringify({ status: 'running', title: 3, model: null, started: ['x'], experiment: {}, deep: 0 });
    const path = makeRun(join(folder, 'odd', 'types'), odd.replace('"deep":0', `"deep":${deep}`));
    const { status, body } = await ask('/', { server: await serve([path]) });
    expect(status).toBe(200);
    expect(body).toContain('>types</bdi>');
  });
});

describe('finding runs', () => {
  test('one folder, or one or two levels up, each run once; nothing hidden, linked or deeper', async () => {
    const root = join(folder, 'tree');
    const inside = ['a', 'b/c'].map((name) => makeRun(join(root, name)));
    for (const name of ['.hidden', 'b/.hidden', 'node_modules/x', 'b/d/e']) makeRun(join(root, name));
    symlinkSync(join(runs, 'one'), join(root, 'link'));
    const paths = async (...roots: string[]) => (await findRuns(roots)).map(({ path }) => path);
    expect(await paths(root)).toEqual(inside);
    expect(await paths(join(root, 'a'), root)).toEqual(inside);
    expect(await paths(join(root, 'link'))).toEqual([join(runs, 'one')]);
    expect((await findRuns([root])).map(({ id }) => id)).toEqual((await findRuns([root])).map(({ id }) => id));
  });

  test('says what is wrong with a folder', async () => {
    mkdirSync(join(folder, 'empty'));
    await expectError(() => findRuns([join(folder, 'nowhere')]), 'FILE_NOT_FOUND', /There is no folder .*nowhere/);
    await expectError(() => findRuns([join(folder, 'secret.svg')]), 'RUN_INVALID', /is a file\. Name the folder/);
    await expectError(() => findRuns([runs, join(folder, 'empty')]), 'RUN_INVALID', /no run in .*empty.*--output/);
  });

  test('says when the port is taken', async () => {
    const other = createServer((socket: Socket) => socket.end()).listen(0, '127.0.0.1');
    await new Promise((resolve) => other.once('listening', resolve));
    const { port } = other.address() as { port: number };
    await expectError(() => serveRuns([runs], { port }), 'PORT_UNAVAILABLE', /is taken\. Name another --port/);
    await new Promise((resolve) => other.close(resolve));
    const again = await serve([runs], { port });
    expect(again.url).toBe(`http://127.0.0.1:${port}/`);
  });
});
