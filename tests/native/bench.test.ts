import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import type { Measurement } from '../../src/studies/bench.js';
import { xpatch } from '../command.js';
import { temporaryFolder } from '../unit/helpers.js';

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
  // A pass over a prompt computes many positions in the time that one new token takes.
  const rate = (name: string) => result.measured.find((one) => one.name === name)?.value as number;
  expect(rate('prefill')).toBeGreaterThan(rate('decode'));

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
});
