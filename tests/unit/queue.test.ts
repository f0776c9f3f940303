// What goes through a queue; the queue itself is in tests/e2e/queue.test.ts.
import { describe, expect, test } from '@jest/globals';
import type { Io } from '../../src/cli/io.js';
import { Terminal } from '../../src/cli/terminal.js';
import { addressOf } from '../../src/experiment/queue/broker.js';
import { idOf, packVector, type QueuedWork, unpackVector } from '../../src/experiment/queue/protocol.js';
import { Collected, xpatch } from '../command.js';
import { expectError } from './helpers.js';
import { sampleVector } from './run-samples.js';

const WORK: QueuedWork = {
  kind: 'answers',
  stage: 'test',
  task: 'country-capital',
  seed: 1,
  items: ['Peru'],
  layers: { 'Text Patch': [3] },
  vectors: { 'Text Patch': 'country-capital.text.seed1' },
};

test('a vector comes out as it went in, to the last bit', () => {
  const vector = sampleVector(1 / 3);
  const again = unpackVector(JSON.parse(JSON.stringify(packVector(vector))));
  expect(again.info).toEqual(vector.info);
  expect(again.toArray()).toEqual(vector.toArray());
});

test('what is no vector is refused', async () => {
  const packed = packVector(sampleVector(1));
  const nan = Buffer.alloc(24);
  nan.writeFloatLE(Number.NaN, 8);
  for (const wrong of [undefined, null, {}, 'x', { ...packed, data: 7 }, { ...packed, data: packed.data.slice(8) }]) {
    await expectError(() => unpackVector(wrong), 'VECTOR_INVALID', /task vector/);
  }
  await expectError(() => unpackVector({ ...packed, data: nan.toString('base64') }), 'VECTOR_INVALID', /NaN/);
});

test('the same work has the same name, other work another, and all names are ones that BullMQ takes', () => {
  const others: QueuedWork[] = [
    { ...WORK, stage: 'validation' },
    { ...WORK, seed: 2 },
    { ...WORK, items: ['Peru', 'Chad'] },
    { ...WORK, layers: { 'Text Patch': [4] } },
    { ...WORK, vectors: {} },
    { kind: 'vector', name: 'country-capital.text.seed1' },
  ];
  expect(idOf({ ...WORK, items: [...WORK.items] })).toBe(idOf(WORK));
  const names = [WORK, ...others].map(idOf);
  expect(new Set(names).size).toBe(names.length);
  for (const name of names) expect(name).toMatch(/^w[0-9a-f]{40}$/);
});

describe('the URL of a queue', () => {
  test.each([
    ['redis://10.0.0.7', 'redis://10.0.0.7'],
    ['redis://:secret@10.0.0.7:6380/3', 'redis://10.0.0.7:6380'],
    ['rediss://user:secret@big.example', 'rediss://big.example'],
  ])('%s is shown as %s', (url, place) => {
    expect(addressOf(url)).toBe(place);
  });

  test.each(['', 'redis', 'http://10.0.0.7', 'redis://', '10.0.0.7:6379'])('%j is refused', async (url) => {
    await expectError(() => addressOf(url), 'INVALID_ARGUMENT', /redis:\/\/:PASSWORD@/);
  });

  test.each([
    ['redis://10.0.0.7:6379/1', 'redis://10.0.0.7:6379/1'],
    ['redis://:secret@h:6380/3', 'redis://:PASSWORD@h:6380/3'],
    ['redis://secret@h', 'redis://:PASSWORD@h'],
    ['rediss://secret:secret@h', 'rediss://:PASSWORD@h'],
    ['redis://:my@secret@h', 'redis://:PASSWORD@h'],
    ['redis://:a/secret@h', 'redis://:PASSWORD@h'],
    ['redis://:%40secret%2F@h', 'redis://:PASSWORD@h'],
    ['REDISS://:secret@h', 'REDISS://:PASSWORD@h'],
    [' re\tdis:/\n/:secret@h', 'redis://:PASSWORD@h'],
    ['redis://:secret@h:no-port', 'redis://:PASSWORD@h:no-port'],
  ])('%j is recorded as %s', (url, shown) => {
    const io = { stdout: new Collected(), stderr: new Collected(), env: {} } as unknown as Io;
    const recorded = (...args: string[]) => new Terminal(args, io).commandLine();
    expect(recorded('eval', '--queue', url)).toBe(`xpatch eval --queue ${shown}`);
    expect(recorded('eval', `--queue=${url}`)).toBe(`xpatch eval --queue=${shown}`);
    expect(recorded('work', url, '-m', 'a@b')).toBe(`xpatch work ${shown} -m a@b`);
  });

  test('is not echoed with its password when it is wrong', async () => {
    const { code, stdout, stderr } = await xpatch(['work', 'http://:secret@10.0.0.7', '-m', 'demo', '--json']);
    expect([code, JSON.parse(stdout).error.code]).toEqual([2, 'INVALID_ARGUMENT']);
    expect(stdout + stderr).not.toContain('secret');
  });
});
