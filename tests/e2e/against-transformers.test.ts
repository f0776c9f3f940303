// Steering, patching maps, head effects and attribution beside transformers on the same weights.
// scripts/against-transformers/reference.py made the numbers; docs/results/circuits.md has those of SmolLM2.
import { execFileSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';
import { temporaryFolder } from '../unit/helpers.js';
import { FIXTURES } from './cli-helpers.js';

const folder = await temporaryFolder();
const SCRIPT = join(PACKAGE_ROOT, 'scripts', 'against-transformers', 'compare.mjs');
const REFERENCE = join(PACKAGE_ROOT, 'tests', 'fixtures', 'against-transformers', 'llama.json');
const compare = (reference: string) =>
  execFileSync(process.execPath, ['--no-warnings', SCRIPT, join(FIXTURES, 'llama.gguf'), reference], {
    encoding: 'utf8',
    stdio: 'pipe',
  });

test('the tools give what transformers gives', () => {
  expect(compare(REFERENCE)).toMatch(/\| tokens that differ, of 20 with steering and 20 without \| 0 \| 0 \|/);
});

test('a difference is found', async () => {
  const reference = JSON.parse(await readFile(REFERENCE, 'utf8'));
  reference.map.values[1][3] += 2e-4;
  await writeFile(join(folder, 'off.json'), JSON.stringify(reference));
  expect(() => compare(join(folder, 'off.json'))).toThrow(
    expect.objectContaining({ stdout: expect.stringMatching(/patching map.* 2\.\de-4 /) }),
  );
});
