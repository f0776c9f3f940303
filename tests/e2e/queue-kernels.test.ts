// Workers of a queue that compute differently, here because a server of rpc-server computes for them: refused or recorded, as the run says.
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { startServer } from '../native/rpc-helpers.js';
import { commandLine, finish } from './cli-helpers.js';
import { TestRedis } from './redis.js';

const cli = commandLine();
const CONFIG = {
  tasks: ['food-color'],
  seeds: [1, 2],
  query: 'text',
  validation: 6,
  test: 100,
  prompts: 2,
  layers: [4],
  conditions: [
    { name: 'No Context', kind: 'bare' },
    { name: 'Text Patch', kind: 'patch', spec: 'text' },
  ],
};
const EVAL = ['eval', 'kernels.json', '-m', 'demo', '--device', 'cpu'];
const linesOf = (run: string) =>
  readFileSync(join(cli.folder, run, 'results.jsonl'), 'utf8')
    .trim()
    .split('\n');
const answeredBy = (run: string): Record<string, number> =>
  JSON.parse(readFileSync(join(cli.folder, run, 'manifest.json'), 'utf8')).answeredBy;

const started: ChildProcess[] = [];
afterAll(() => started.forEach((child) => void child.kill('SIGKILL')));
const start = (args: string[]) => {
  const child = cli.start(args);
  started.push(child);
  return { child, outcome: finish(child) };
};
let redis: TestRedis;
let rpc: string;
const work = (...more: string[]) => start(['work', redis.url, '-m', 'demo', '--device', 'cpu', '--json', ...more]);

const stop = ({ child, outcome }: ReturnType<typeof start>) => {
  child.kill('SIGTERM');
  return outcome;
};

async function until(what: () => Promise<boolean> | boolean): Promise<void> {
  for (const end = Date.now() + 120_000; !(await what()); await wait(50)) {
    if (Date.now() > end) throw new Error('It takes too long.');
  }
}

beforeAll(async () => {
  writeFileSync(join(cli.folder, 'kernels.json'), JSON.stringify(CONFIG));
  redis = await TestRedis.start();
  rpc = (await startServer()).endpoint;
});

test('the second kind is refused and the run says so; started again it accepts any, and records what answered', async () => {
  const before = start([...EVAL, '--queue', redis.url, '-o', 'run']);
  let said = '';
  before.child.stderr?.on('data', (chunk) => {
    said += chunk;
  });
  const first = work();
  await until(() => existsSync(join(cli.folder, 'run', 'results.jsonl')) && linesOf('run').length > 1);
  await stop(first); // it finishes its batch, and leaves
  // Nobody is left of the kind that began the run.
  const other = work('--rpc', rpc);
  await until(() => said.includes('a worker was refused'));
  expect(said).toMatch(
    /it has llama\.cpp v\S+, CPU and RPC, states \w+, but llama\.cpp v\S+, CPU, states \w+ began the run; .*--kernels any/,
  );
  const there = linesOf('run').length;
  before.child.kill('SIGKILL');
  const { code } = await start([...EVAL, '--queue', redis.url, '--kernels', 'any', '-o', 'run', '--quiet']).outcome;
  expect([code, linesOf('run').length]).toEqual([0, 400]);
  expect(there).toBeLessThan(400);
  const kinds = Object.entries(answeredBy('run')).map(([kind, n]) => [/, CPU( and RPC)?,/.exec(kind)?.[0], n > 0]);
  expect(kinds.sort()).toEqual([
    [', CPU and RPC,', true],
    [', CPU,', true],
  ]);
  const { done, refused } = JSON.parse((await stop(other)).stdout);
  expect([done.length, refused]).toEqual([1, 1]);
});
