// Layers on servers of ggml-rpc, two of them on this machine, against the CPU of this process.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { beforeAll, describe, expect, test } from '@jest/globals';
import type { Intervention } from '../../src/hooks/types.js';
import { logitLens } from '../../src/lens/logit-lens.js';
import { loadModel } from '../../src/model/load-model.js';
import type { Model } from '../../src/model/model.js';
import { native } from '../../src/native/index.js';
import { rpcTraffic } from '../../src/native/rpc.js';
import { PACKAGE_ROOT } from '../../src/util/package-root.js';
import { FULL } from '../full.js';
import { fixture, load, picture, randomTokens, randomVector } from './helpers.js';
import { greetingOf, type RpcServer, startImpostor, startProxy, startServer, type TestProxy } from './rpc-helpers.js';

const MAIN = join(PACKAGE_ROOT, 'dist', 'cli', 'main.js');

/** States of all layers and positions, patches, logits and a lens. */
async function measure(model: Model, image: string | undefined): Promise<Record<string, Float32Array>> {
  // Without flash attention, which this machine computes by a kernel of its own too.
  await using context = await model.createContext({ nCtx: 256, nUbatch: 64, flashAttention: 'off' });
  const tokens = randomTokens(model, 12);
  const parts = image ? [{ tokens }, { image: picture(image) }, { tokens: tokens.slice(0, 4) }] : { tokens };
  const prompt = await model.prompt(parts);
  const value = randomVector(model.info.nEmbd, 7);
  const patches: Intervention[] = [
    { layers: 0, positions: [2, -1], op: 'replace', value },
    { layers: model.info.nLayers - 1, positions: 'last', op: 'add', value },
  ];
  const everything = { prompt, capture: { layers: 'all', positions: 'all' }, logits: 'all' } as const;
  const [plain, patched, last] = await context.pass([
    everything,
    { ...everything, interventions: patches },
    { prompt, capture: { layers: 'all', positions: 'last' }, logits: 'last' },
  ] as const);
  const lens = await logitLens(context, plain.states, { topK: 3 });
  return {
    states: plain.states.data,
    logits: plain.logits.data,
    'patched states': patched.states.data,
    'patched logits': patched.logits.data,
    deltas: Float32Array.from(patched.interventions.map(({ delta }) => delta)),
    'last states': last.states.data,
    'lens entropy': Float32Array.from(lens.cells.flat().map(({ entropy }) => entropy)),
  };
}

/** Largest difference, in units of the largest number. */
function distance(a: Float32Array, b: Float32Array): number {
  const worst = a.reduce((most, x, i) => Math.max(most, Math.abs(x - (b[i] as number))), 0);
  return a.length === b.length ? worst / a.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-30) : Number.NaN;
}

/** Servers sum products in ggml's order, this machine in that of its own kernels; the cache keeps keys and values in F16. */
const ROUNDING = 1e-3;

describe('over two servers', () => {
  let proxies: [TestProxy, TestProxy];
  beforeAll(async () => {
    const servers = await Promise.all([startServer(), startServer()]);
    proxies = (await Promise.all(servers.map(({ endpoint }) => startProxy(endpoint)))) as [TestProxy, TestProxy];
  });
  const endpoints = () => proxies.map(({ endpoint }) => endpoint);

  test.each([
    ['llama', undefined],
    ['qwen2-vl', 'wide.png'],
    ['mantis-fuyu', 'wide.png'],
    ...(FULL
      ? ([
          ['gemma3', 'wide.png'],
          ['gpt-neox', undefined],
        ] as const)
      : []),
  ] as const)('%s: states at all layers, patches, logits and the lens are those of the CPU', async (name, image) => {
    const vision = image !== undefined;
    const local = await measure(await load(name, { vision }), image);
    for (const rpc of [endpoints().slice(0, 1), endpoints()]) {
      await using model = await loadModel(fixture(`${name}.gguf`), {
        device: 'cpu',
        threads: 1,
        mmproj: vision ? fixture(`${name}.mmproj.gguf`) : undefined,
        rpc,
      });
      const remote = await measure(model, image);
      for (const [what, values] of Object.entries(local)) {
        const far = distance(values, remote[what] as Float32Array);
        expect([what, far < ROUNDING ? 0 : far]).toEqual([what, 0]);
      }
    }
  });

  test('the demo model and its pictures too', async () => {
    const local = await loadModel('demo', { device: 'cpu', threads: 1 });
    await using model = await loadModel('demo', { device: 'cpu', threads: 1, rpc: endpoints() });
    const [here, there] = [await measure(local, 'square-a.png'), await measure(model, 'square-a.png')];
    await local.dispose();
    // Its weights are in F16, for whose products ggml rounds states to halves.
    for (const [what, values] of Object.entries(here)) {
      const far = distance(values, there[what] as Float32Array);
      expect([what, far < 1e-2 ? 0 : far]).toEqual([what, 0]);
    }
  });

  test('the layers are on both, and the bytes of every pass are counted', async () => {
    await wait(500); // what the model before said at its end is still on its way
    const before = proxies.map(({ bytes }) => ({ ...bytes }));
    const counted = rpcTraffic();
    await using model = await loadModel(fixture('llama.gguf'), { device: 'cpu', threads: 1, rpc: endpoints() });
    await measure(model, undefined);
    const now = rpcTraffic();
    await wait(500);
    const through = proxies.map(({ bytes }, i) => ({
      sent: bytes.sent - (before[i]?.sent as number),
      received: bytes.received - (before[i]?.received as number),
    }));
    for (const { sent, received } of through) {
      expect(sent).toBeGreaterThan(10_000);
      expect(received).toBeGreaterThan(1000);
    }
    // The greeting before is not the addon's: 33 bytes and 36 for each server.
    const sum = (side: 'sent' | 'received') => through.reduce((all, one) => all + one[side], 0);
    expect(now.sent - counted.sent).toBe(sum('sent') - 2 * 33);
    expect(now.received - counted.received).toBe(sum('received') - 2 * 36);
    expect(now.decodes).toBeGreaterThan(counted.decodes);
  });

  test('only the rows that were asked for are fetched', async () => {
    await using model = await loadModel(fixture('llama.gguf'), { device: 'cpu', threads: 1, rpc: endpoints() });
    await using context = await model.createContext({ nCtx: 256 });
    const { nEmbd, nLayers } = model.info;
    const prompt = await model.prompt({ tokens: randomTokens(model, 100) });
    const received = async (positions: 'last' | 'all') => {
      const before = rpcTraffic().received;
      await context.run({ prompt, capture: { layers: 'all', positions } });
      return rpcTraffic().received - before;
    };
    const [last, all] = [await received('last'), await received('all')];
    const states = 99 * nLayers * nEmbd * 4;
    expect(all - last).toBeGreaterThan(states * 0.98);
    expect(all - last).toBeLessThan(states * 1.02); // no logits: those of 99 rows are more than that
    expect(99 * model.info.nVocab * 4).toBeGreaterThan(states * 0.05);
    expect(last).toBeLessThan(all / 3);
  });

  test('auto takes no server', async () => {
    await using model = await loadModel(fixture('llama.gguf'), { device: 'cpu', threads: 1, rpc: endpoints() });
    const local = await loadModel(fixture('llama.gguf'), { threads: 1 });
    const before = rpcTraffic();
    await measure(local, undefined);
    expect(rpcTraffic()).toEqual(before);
    expect(model.options.rpc).toEqual(endpoints());
    await local.dispose();
  });
});

describe('a server that cannot be used is an error with a way out', () => {
  const opening = (...rpc: string[]) => loadModel(fixture('llama.gguf'), { device: 'cpu', threads: 1, rpc });

  test('where none listens', async () => {
    await expect(opening('127.0.0.1:9')).rejects.toMatchObject({
      code: 'RPC_FAILED',
      message: expect.stringMatching(/127\.0\.0\.1:9 cannot be reached: .*ECONNREFUSED.*xpatch rpc-server/),
    });
    await expect(opening('no-such-host.invalid')).rejects.toMatchObject({ code: 'RPC_FAILED' });
  });

  test.each(['', 'a b', 'host:', 'host:0', 'host:70000', 'http://host:1', '::1'])('under the name %j', async (name) => {
    await expect(opening(name)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', message: /host:port/ });
  });

  test('that is named twice', async () => {
    const { endpoint } = await startServer();
    await expect(opening(endpoint, endpoint)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test.each([
    ['of another llama.cpp', [6, 0, 0], 'xpatch v9.9.9', /runs llama\.cpp v9\.9\.9 .*same version/],
    ['of another protocol', [7, 0, 0], '', /is not an xpatch server/],
    ['of llama.cpp itself', [6, 0, 0], '', /is not an xpatch server/],
  ] as const)('%s', async (_, version, words, message) => {
    const endpoint = await startImpostor(greetingOf([...version], words));
    await expect(opening(endpoint)).rejects.toMatchObject({
      code: 'RPC_FAILED',
      message: expect.stringMatching(message),
    });
  });

  test('with other words in the greeting, it ends the connection itself', async () => {
    const { endpoint } = await startServer();
    const [host, port] = endpoint.split(':') as [string, string];
    const socket = createConnection({ host, port: Number(port) });
    const hello = Buffer.alloc(33);
    hello[0] = 14;
    hello.writeBigUInt64LE(24n, 1);
    hello.write('xpatch v9.9.9', 9);
    socket.write(hello);
    socket.resume();
    await once(socket, 'close');
    await (await opening(endpoint)).dispose(); // and serves others
  });

  test('that is silent, or busy with somebody else', async () => {
    const silent = await startImpostor(undefined);
    await expect(opening(silent)).rejects.toMatchObject({ code: 'RPC_FAILED', message: /does not answer/ });
    const { endpoint } = await startServer();
    const [host, port] = endpoint.split(':') as [string, string];
    const socket = createConnection({ host, port: Number(port) });
    await once(socket, 'connect');
    socket.write(Buffer.from([14])); // somebody who is slow
    await wait(200);
    await expect(opening(endpoint)).rejects.toMatchObject({ code: 'RPC_FAILED', message: /may be busy/ });
    socket.destroy();
  });
});

describe('a server that is lost', () => {
  let server: RpcServer;
  const open = (rpc: readonly string[]) => loadModel(fixture('llama.gguf'), { device: 'cpu', threads: 1, rpc });

  test('in a pass makes it fail, ends nothing else, and may come back', async () => {
    server = await startServer();
    const other = await startServer();
    const [lost, kept] = [await open([server.endpoint, other.endpoint]), await load('llama')];
    const context = await lost.createContext({ nCtx: 256 });
    const prompt = await lost.prompt({ tokens: randomTokens(lost, 100) });
    const row = { prompt, capture: { layers: 'all', positions: 'all' } } as const;
    const expected = (await context.run(row)).states.data;
    const failing = (async () => {
      for (;;) expect(distance((await context.run(row)).states.data, expected)).toBeLessThan(ROUNDING);
    })();
    await wait(100);
    await server.kill();
    await expect(failing).rejects.toMatchObject({
      code: 'RPC_FAILED',
      message: expect.stringContaining(server.endpoint),
    });
    await expect(context.run(row)).rejects.toMatchObject({ code: 'RPC_FAILED' });
    await expect(lost.createContext()).rejects.toMatchObject({ code: 'RPC_FAILED' });
    // Models of this process go on, and one can be loaded again when the server is back.
    await using local = await kept.createContext({ nCtx: 256 });
    expect(distance((await local.run(row)).states.data, expected)).toBeLessThan(ROUNDING);
    server = await startServer(server.endpoint);
    await using again = await open([server.endpoint]);
    await using fresh = await again.createContext({ nCtx: 256 });
    expect(distance((await fresh.run(row)).states.data, expected)).toBeLessThan(ROUNDING);
    await expect(context.run(row)).rejects.toMatchObject({ code: 'RPC_FAILED' });
    await lost.dispose();
    expect(distance((await fresh.run(row)).states.data, expected)).toBeLessThan(ROUNDING);
  });

  test('while a model is loaded, at any byte', async () => {
    const { endpoint } = await startServer();
    for (let part = 1; part <= 8; part++) {
      const proxy = await startProxy(endpoint);
      const at = part * 40_000;
      const timer = setInterval(() => proxy.bytes.sent >= at && proxy.cut(), 1);
      const outcome = await open([proxy.endpoint])
        .then(async (model) => {
          const context = await model.createContext({ nCtx: 256 });
          const prompt = await model.prompt({ tokens: randomTokens(model, 50) });
          for (let i = 0; i < 50; i++) await context.run({ prompt, logits: 'last' });
          return 'nothing was lost';
        })
        .catch((error) => error.code);
      clearInterval(timer);
      expect(outcome).toBe('RPC_FAILED');
    }
  });

  test('and falls silent, is given up after the time that was set', async () => {
    server = await startServer();
    const proxy = await startProxy(server.endpoint);
    const args = ['run', '-m', fixture('llama.gguf'), '--device', 'cpu', '--rpc', proxy.endpoint];
    const child = spawn(process.execPath, ['--no-warnings', MAIN, ...args, '--tokens', '5,6,7', '--json'], {
      env: { ...process.env, XPATCH_RPC_TIMEOUT: '2' },
    });
    const timer = setInterval(() => proxy.bytes.sent > 20_000 && proxy.silence(), 1);
    let out = '';
    child.stdout.on('data', (chunk) => {
      out += chunk;
    });
    const [code, signal] = await once(child, 'close');
    clearInterval(timer);
    expect({ code, signal, error: JSON.parse(out).error?.code }).toEqual({
      code: 1,
      signal: null,
      error: 'RPC_FAILED',
    });
  });
});

test('a process that is stopped and continued, as by Ctrl-Z and fg, loses no server', async () => {
  const { endpoint } = await startServer();
  const script = `
    import { loadModel } from ${JSON.stringify(join(PACKAGE_ROOT, 'dist', 'index.js'))};
    const model = await loadModel(${JSON.stringify(fixture('llama.gguf'))}, { device: 'cpu', threads: 1, rpc: ['${endpoint}'] });
    const context = await model.createContext();
    const prompt = await model.prompt({ tokens: [5, 6, 7] });
    let over = false;
    process.stdin.once('data', () => (over = true));
    console.log('ready');
    while (!over) await context.run({ prompt, logits: 'last' });
    process.exit(0);`;
  const child = spawn(process.execPath, ['--no-warnings', '--input-type=module', '-e', script]);
  const ended = once(child, 'exit');
  await once(child.stdout, 'data');
  for (let i = 0; i < 50; i++) {
    child.kill('SIGSTOP');
    await wait(5);
    child.kill('SIGCONT');
    await wait(20);
  }
  child.stdin.write('enough\n');
  expect(await ended).toEqual([0, null]);
});

test('a thread that ends leaves the server to the others', async () => {
  const { endpoint } = await startServer();
  const open = { device: 'cpu', threads: 1, rpc: [endpoint] };
  await using model = await loadModel(fixture('llama.gguf'), open);
  await using context = await model.createContext({ nCtx: 256 });
  const row = { prompt: await model.prompt({ tokens: [5, 6, 7] }), logits: 'last' } as const;
  const before = (await context.run(row)).logits.data;
  const script = `
    import { parentPort } from 'node:worker_threads';
    import { loadModel } from ${JSON.stringify(pathToFileURL(join(PACKAGE_ROOT, 'dist', 'index.js')).href)};
    globalThis.model = await loadModel(${JSON.stringify(fixture('llama.gguf'))}, ${JSON.stringify(open)});
    parentPort.postMessage('ready');
    setInterval(() => undefined, 1000);`;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(script)}`));
  await once(worker, 'message');
  await worker.terminate();
  expect(distance((await context.run(row)).logits.data, before)).toBeLessThan(ROUNDING);
});

test('a process that ends does not wait for a server', async () => {
  const { endpoint } = await startServer();
  const proxy = await startProxy(endpoint);
  const script = `
    import { loadModel } from ${JSON.stringify(join(PACKAGE_ROOT, 'dist', 'index.js'))};
    const model = await loadModel(${JSON.stringify(fixture('llama.gguf'))}, { device: 'cpu', threads: 1, rpc: ['${proxy.endpoint}'] });
    const context = await model.createContext();
    console.log('ready');
    process.stdin.once('data', () => {
      model.prompt({ tokens: [5, 6, 7] }).then((prompt) => context.run({ prompt, logits: 'last' }));
      setTimeout(() => process.exit(7), 300);
    });`;
  const child = spawn(process.execPath, ['--no-warnings', '--input-type=module', '-e', script]);
  await once(child.stdout, 'data');
  proxy.silence();
  child.stdin.write('go\n');
  expect(await once(child, 'exit')).toEqual([7, null]);
});

describe('rpc-server', () => {
  test('warns where others can reach it, and only there', async () => {
    const [open, closed] = [await startServer('0.0.0.0:0'), await startServer()];
    expect(open.log()).toMatch(/can be reached from other machines.* no authentication/);
    expect(closed.log()).toBe('');
    await open.kill();
  });

  test('says so when its port is taken', async () => {
    const { endpoint } = await startServer();
    await expect(startServer(endpoint)).rejects.toThrow(/PORT_UNAVAILABLE|ended/);
  });

  test('goes on after a request that ends the process that serves', async () => {
    const { endpoint } = await startServer();
    const [host, port] = endpoint.split(':') as [string, string];
    const socket = createConnection({ host, port: Number(port) });
    socket.on('error', () => undefined);
    const hello = Buffer.alloc(33);
    hello[0] = 14;
    hello.writeBigUInt64LE(24n, 1);
    hello.write(native().addon.rpcProtocol().greeting, 9);
    // A tensor to be read that lies nowhere.
    const request = Buffer.alloc(9 + 4096, 0xff);
    request[0] = 10;
    request.writeBigUInt64LE(4096n, 1);
    socket.write(Buffer.concat([hello, request]));
    socket.resume();
    await once(socket, 'close');
    for (let tries = 0; ; tries++) {
      try {
        await (await loadModel(fixture('llama.gguf'), { device: 'cpu', threads: 1, rpc: [endpoint] })).dispose();
        break;
      } catch (error) {
        if (tries === 20) throw error;
        await wait(250);
      }
    }
  });
});
