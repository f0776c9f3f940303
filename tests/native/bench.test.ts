import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import type { Measurement } from '../../src/studies/bench.js';
import { fastestTypes, type TypeSpeeds } from '../../src/studies/type-speeds.js';
import { xpatch } from '../command.js';
import { temporaryFolder } from '../unit/helpers.js';

const TYPES = ['F16', 'BF16', 'Q8_0', 'Q6_K', 'Q5_0', 'Q4_K', 'Q4_0'];

const folder = await temporaryFolder();
const measure = async () => {
  const { code, stdout, stderr } = await xpatch(['bench', '-m', 'demo', '--seconds', '1', '--json']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout) as { measured: Measurement[]; model: { name: string } };
};

test('every kind of work of a model with pictures, and a comparison', async () => {
  const result = await measure();
  const names = ['prefill', 'decode', 'capture', 'sweep', 'lens', 'queries', 'picture', 'memory'];
  expect(result.measured.map(({ name }) => name)).toEqual(names);
  for (const { value } of result.measured) expect(value).toBeGreaterThan(0);

  const faster = { ...result, measured: result.measured.map((one) => ({ ...one, value: 2 * one.value })) };
  const [a, b] = [join(folder, 'a.json'), join(folder, 'b.json')];
  writeFileSync(a, JSON.stringify(result));
  writeFileSync(b, JSON.stringify(faster));
  const compared = await xpatch(['bench', '--compare', a, b, '--json']);
  expect(JSON.parse(compared.stdout).ratios).toEqual(Object.fromEntries(names.map((name) => [name, 2])));
  const shown = await xpatch(['bench', '--compare', a, b]);
  expect(shown.stdout.match(/ 2\.00 /g)).toHaveLength(names.length);
});

test.each([
  ['is not there', undefined, /absent\.json/],
  ['is no JSON', '{', /is not JSON/],
  ['is of something else', '{"measured": [{"name": "prefill", "value": "fast"}]}', /is not what the command prints/],
])('a measurement that %s', async (_, content, message) => {
  const path = join(folder, content === undefined ? 'absent.json' : 'damaged.json');
  if (content !== undefined) writeFileSync(path, content);
  const { code, stderr } = await xpatch(['bench', '--compare', path, path]);
  expect(code).not.toBe(0);
  expect(stderr).toMatch(message);
});

test('one measurement alone has nothing to be compared with', async () => {
  const path = join(folder, 'alone.json');
  writeFileSync(path, JSON.stringify({ machine: {}, model: {}, measured: [] }));
  expect((await xpatch(['bench', path])).stderr).toMatch(/--compare A B/);
  expect((await xpatch(['bench', '--types', '--compare', path])).stderr).toMatch(/leave out the files/);
});

test('types of weights, which models info repeats on the same processor', async () => {
  const { XPATCH_MODELS } = process.env;
  const cache = join(folder, 'cache');
  process.env.XPATCH_MODELS = cache;
  try {
    const info = async () => (await xpatch(['models', 'info', 'smollm2-135m'])).stdout;
    expect(await info()).toMatch(/fastest weights here: not measured yet, `xpatch bench --types` does\n$/);
    const measured = await xpatch(['bench', '--types', '--device', 'cpu', '--threads', '1', '--json']);
    expect(measured.code).toBe(0);
    const speeds = JSON.parse(measured.stdout) as TypeSpeeds;
    expect(speeds.types.map(({ type }) => type)).toEqual(TYPES);
    for (const { prompt, answer } of speeds.types) expect(Math.min(prompt, answer)).toBeGreaterThan(0);
    expect(await info()).toContain(`\n${fastestTypes(speeds)}\n`);

    const file = join(cache, '.speeds.json');
    for (const other of ['{', 'null', JSON.stringify({ ...speeds, processor: 'another' }), '{"types":[{}]}']) {
      writeFileSync(file, other);
      expect(await info()).toMatch(/not measured yet/);
    }
  } finally {
    process.env.XPATCH_MODELS = XPATCH_MODELS;
    if (XPATCH_MODELS === undefined) delete process.env.XPATCH_MODELS;
  }
});

test('which types are fastest, in a sentence', () => {
  const types = [
    { type: 'F16', prompt: 100, answer: 10 },
    { type: 'Q8_0', prompt: 150, answer: 20 },
    { type: 'Q4_0', prompt: 50, answer: 40 },
  ] as const;
  expect(fastestTypes({ processor: 'p', device: 'auto', types })).toBe(
    'fastest weights here: for prompts Q8_0 (1.5 times as fast as F16), then F16 (1.0); for answers Q4_0 (4.0 times as fast as F16), then Q8_0 (2.0)',
  );
});
