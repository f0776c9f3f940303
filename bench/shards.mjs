#!/usr/bin/env node
// How much less processor time the longest of N shards takes than one process does, in the two ways of dividing an experiment: both
// stages divided (`--stage`), and the test alone.
//
//   node bench/shards.mjs [--shards 4] [--set KEY=VALUE]... [-m demo] [--one] [--json FILE]
//
// --one: of the test only the first shard, which stands for all; the parts of the test have the same number of queries, to one batch.
// Needs the compiled dist/ and bash, whose `time` counts the processor time of everything that a command starts. The shards run one
// after the other, on one thread each.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { argv, execPath, stdout } from 'node:process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  args: argv.slice(2),
  options: {
    shards: { type: 'string', default: '4' },
    set: { type: 'string', multiple: true, default: [] },
    model: { type: 'string', short: 'm', default: 'demo' },
    one: { type: 'boolean', default: false },
    json: { type: 'string' },
  },
});
const n = Number(values.shards);
const main = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'xpatch-shards-'));

/** Runs a command of xpatch. @returns its seconds of processor time */
function seconds(...args) {
  const { status, stderr } = spawnSync(
    'bash',
    ['-c', 'TIMEFORMAT="%U %S"; time "$@"', 'bash', execPath, '--no-warnings', main, ...args, '--quiet'],
    { cwd: folder, encoding: 'utf8' },
  );
  if (status !== 0) throw new Error(`xpatch ${args.join(' ')} failed: ${stderr}`);
  const [user, system] = stderr.trim().split('\n').at(-1).split(' ').map(Number);
  return user + system;
}

const settings = values.set.flatMap((setting) => ['--set', setting]);
const run = ['eval', 'main', '-m', values.model, '--device', 'cpu', '--threads', '1', ...settings];
const parts = Array.from({ length: n }, (_, i) => i + 1);
const longest = (some) => Math.max(...some);
try {
  const shown = (what, list) => {
    stdout.write(`${what} ${list.map((s) => s.toFixed(1)).join(', ')} s\n`);
    return list;
  };
  const [one] = shown('one process', [seconds(...run, '-o', 'one')]);
  const of = (stage, i, name, more = []) =>
    seconds(...run, ...stage, ...more, '--shard', `${i}/${n}`, '-o', `${name}${i}`);
  const validation = shown(
    'validation',
    parts.map((i) => of(['--stage', 'validation'], i, 'v')),
  );
  const merges = shown('merge', [seconds('merge', ...parts.map((i) => `v${i}`), '-o', 'v')]);
  const tested = values.one ? [1] : parts;
  const test = shown(
    'test',
    tested.map((i) => of(['--stage', 'test', '--layer-from', 'v'], i, 't')),
  );
  const staged = one / (longest(validation) + longest(test));
  stdout.write(`${n} shards of both stages: ${staged.toFixed(2)} times less, without the merges\n`);
  const results = { one, validation, test, merges, staged };
  if (!values.one) {
    merges.push(...shown('merge', [seconds('merge', ...parts.map((i) => `t${i}`), '-o', 'whole')]));
    const [single] = shown('one shard of the test alone', [of([], 1, 's')]);
    stdout.write(`${n} shards of the test alone: ${(one / single).toFixed(2)} times less\n`);
    Object.assign(results, { single, unstaged: one / single });
  }
  if (values.json) writeFileSync(values.json, `${JSON.stringify(results, null, 1)}\n`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
