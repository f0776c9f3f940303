// Queries handed out over Redis: workers, the server and the process that collects are killed, and the run is that of one process.
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { RUNS } from '../../src/experiment/queue/protocol.js';
import { Random } from '../../src/util/random.js';
import { commandLine, type Outcome } from './cli-helpers.js';
import { TestRedis } from './redis.js';

const cli = commandLine();
const CONFIG = {
  tasks: ['country-capital', 'food-color'],
  seeds: [1],
  query: 'image',
  shots: 3,
  validation: 4,
  test: 5,
  prompts: 2,
  conditions: [
    { name: 'Majority', kind: 'majority' },
    { name: 'No Context', kind: 'bare' },
    { name: 'Text Prompt', kind: 'prompt', spec: 'text' },
    { name: 'Text Patch', kind: 'patch', spec: 'text' },
    { name: 'Ensemble', kind: 'patch', spec: 'ensemble' },
    { name: 'Random', kind: 'patch', spec: 'text', control: 'random-vector' },
  ],
};
const linesOf = (run: string) =>
  readFileSync(join(cli.folder, run, 'results.jsonl'), 'utf8')
    .trim()
    .split('\n');
const manifestOf = (run: string) => JSON.parse(readFileSync(join(cli.folder, run, 'manifest.json'), 'utf8'));
const EVAL = ['eval', 'queue.json', '-m', 'demo', '--device', 'cpu'];

let expected: string[];
beforeAll(async () => {
  writeFileSync(join(cli.folder, 'queue.json'), JSON.stringify(CONFIG));
  const { code } = await cli.run([...EVAL, '-o', 'one', '--quiet']);
  expect(code).toBe(0);
  expected = linesOf('one').sort();
});

function outcomeOf(child: ChildProcess): Promise<Outcome> {
  let [stdout, stderr] = ['', ''];
  child.stdout?.on('data', (chunk) => {
    stdout += chunk;
  });
  child.stderr?.on('data', (chunk) => {
    stderr += chunk;
  });
  return once(child, 'close').then(([code]) => ({ code, stdout, stderr }));
}

const startWorker = (url: string) =>
  cli.start(['work', url, '-m', 'demo', '--device', 'cpu', '--idle', '120', '--quiet']);

/** Ends a worker, and waits until it is gone: jest's own would wait for it at the end. */
async function ended(worker: ChildProcess): Promise<void> {
  const gone = once(worker, 'exit');
  worker.kill('SIGTERM');
  await gone;
}

/** Waits until a run has so many lines, or has ended. */
async function untilLines(run: string, n: number, ended: Promise<unknown>): Promise<void> {
  let over = false;
  void ended.then(() => {
    over = true;
  });
  const count = () => {
    try {
      return linesOf(run).length;
    } catch {
      return 0;
    }
  };
  while (!over && count() < n) await wait(20);
}

describe('a run of a queue is that of one process, line for line up to order', () => {
  test('when two of three workers are killed, and the server is killed and started again', async () => {
    const redis = await TestRedis.start();
    const collecting = outcomeOf(cli.start([...EVAL, '--queue', redis.url, '-o', 'killed']));
    const workers = [1, 2, 3].map(() => startWorker(redis.url));
    const random = new Random(Date.now() % 1e9, 'kills');
    const instants = [1, 2, 3].map(() => Math.floor(random.uniform() * 0.9 * expected.length)).sort((a, b) => a - b);
    console.log(`killed at lines ${instants.join(', ')} of ${expected.length}`);
    await untilLines('killed', instants[0] as number, collecting);
    workers[0]?.kill('SIGKILL');
    await untilLines('killed', instants[1] as number, collecting);
    await redis.kill();
    await wait(500);
    await redis.start();
    await untilLines('killed', instants[2] as number, collecting);
    workers[1]?.kill('SIGKILL');
    const outcome = await collecting;
    expect(outcome).toMatchObject({ code: 0 });
    expect(linesOf('killed').sort()).toEqual(expected);
    const [by, ...others] = Object.keys(manifestOf('killed').answeredBy);
    expect([by, others]).toEqual([expect.stringMatching(/^llama\.cpp v\S+, CPU, states [0-9a-f]{12}$/), []]);
    const { ok, checks } = await cli.json('verify', 'killed', '--device', 'cpu', '--sample', '6');
    expect([ok, checks.filter(({ state }: { state: string }) => state !== 'ok')]).toEqual([true, []]);
    // BullMQ's own notes may stay: of its version, which a worker that sees the server again writes, and a lock that expires.
    const left = (await redis.use((client) => client.keys('*'))).filter((key) => !/:(meta|stalled-check)$/.test(key));
    expect(left).toEqual([]);
    await ended(workers[2] as ChildProcess);
  });

  test('when the process that collects is killed and started again, and the server wants a password', async () => {
    const redis = await TestRedis.start('a-secret');
    const first = cli.start([...EVAL, '--queue', redis.url, '-o', 'again']);
    const worker = startWorker(redis.url);
    await untilLines('again', expected.length / 3, once(first, 'close'));
    first.kill('SIGKILL');
    await wait(2000);
    const outcome = await outcomeOf(cli.start([...EVAL, '--queue', redis.url, '-o', 'again']));
    expect(outcome).toMatchObject({ code: 0 });
    expect(outcome.stderr).toMatch(/it already has \d+ answers/);
    expect(linesOf('again').sort()).toEqual(expected);
    expect(JSON.stringify(manifestOf('again'))).not.toContain('a-secret');
    expect(manifestOf('again').command).toContain(`redis://:PASSWORD@127.0.0.1:${redis.port}`);
    await ended(worker);
  });
});

test('a run that cannot write any longer ends at once, and what is in the queue stays there', async () => {
  const redis = await TestRedis.start();
  const first = outcomeOf(cli.start([...EVAL, '--queue', redis.url, '-o', 'lost']));
  const worker = startWorker(redis.url);
  await untilLines('lost', 1, first);
  rmSync(join(cli.folder, 'lost'), { recursive: true });
  expect(await first).toMatchObject({ code: 1, stderr: expect.stringMatching(/RUN_INVALID: lost was deleted/) });
  expect(await redis.use((client) => client.hlen(RUNS))).toBe(1);
  expect(await outcomeOf(cli.start([...EVAL, '--queue', redis.url, '-o', 'lost']))).toMatchObject({ code: 0 });
  expect(linesOf('lost').sort()).toEqual(expected);
  expect(await redis.use((client) => client.hlen(RUNS))).toBe(0);
  await ended(worker);
});

describe('a worker that does not fit', () => {
  test('finds no server, or none that a queue can use', async () => {
    for (const [url, code, message] of [
      ['redis://127.0.0.1:9', 'QUEUE_FAILED', /redis:\/\/127\.0\.0\.1:9 cannot be used: .*ECONNREFUSED/],
      ['http://127.0.0.1', 'INVALID_ARGUMENT', /redis:\/\//],
    ] as const) {
      const { code: said, message: words } = await cli.error('work', url, '-m', 'demo');
      expect([said, words]).toEqual([code, expect.stringMatching(message)]);
    }
    // Before anything is loaded or planned.
    const run = await cli.run(['eval', 'main', '-m', 'none.gguf', '--queue', 'redis://127.0.0.1:9', '-o', 'unserved']);
    expect([run.code, run.stderr]).toEqual([1, expect.stringMatching(/QUEUE_FAILED: .*127\.0\.0\.1:9 cannot be used/)]);
    expect(existsSync(join(cli.folder, 'unserved'))).toBe(false);
    const redis = await TestRedis.start('a-secret');
    const wrong = await cli.error('work', `redis://:not-this@127.0.0.1:${redis.port}`, '-m', 'demo');
    expect(wrong.code).toBe('QUEUE_FAILED');
    expect(wrong.message).not.toContain('not-this');
  });

  test('speaks TLS, and only with a server whose certificate it trusts', async () => {
    const redis = await TestRedis.start('a-secret', true);
    const args = ['work', redis.url, '-m', 'demo', '--idle', '1', '--json'];
    const trusting = await cli.spawned(args, { NODE_EXTRA_CA_CERTS: redis.certificate });
    expect([trusting.code, JSON.parse(trusting.stdout)]).toEqual([0, { done: [], refused: 0 }]);
    const { code, message } = await cli.error(...args.slice(0, -1));
    expect([code, message]).toEqual([
      'QUEUE_FAILED',
      expect.stringMatching(/^The queue at rediss:\/\/127.* certificate/),
    ]);
  });
});
