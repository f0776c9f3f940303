// The mmproj of the kind that scripts/real-vlm writes: what its graph takes for granted is checked before it is built.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { readGgufHeader } from '../../src/gguf/gguf.js';
import { checkProjectorFile } from '../../src/gguf/mmproj-check.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';
import { writeTower } from './towers.js';

const folder = await temporaryFolder();
const whole = join(folder, 'whole.gguf');
writeTower(whole, 'nemotron_v2_vl', 64);
const bytes = readFileSync(whole).toString('latin1');

function changed(from: string, to: string): string {
  const path = join(folder, 'changed.gguf');
  expect(bytes).toContain(from);
  writeFileSync(path, Buffer.from(bytes.replace(from, to), 'latin1'));
  return path;
}

test('is accepted whole, and refused without any one of its matrices', async () => {
  expect(checkProjectorFile(whole)).toBe('nemotron_v2_vl');
  const { tensors } = readGgufHeader(whole);
  const needed = tensors.map(({ name }) => name).filter((name) => !/bias$|post_ln|ln\d/.test(name));
  expect(needed.length).toBeGreaterThan(15);
  for (const name of needed) {
    const without = changed(name, `x${name.slice(1)}`);
    await expectError(() => checkProjectorFile(without), 'MMPROJ_INVALID', /has no tensor|has different tensors/);
  }
});

test('is refused without the number of patches that make a row', async () => {
  const without = changed('projector.scale_factor', 'projector.scale_fuctor');
  await expectError(() => checkProjectorFile(without), 'MMPROJ_INVALID', /scale_factor is missing/);
});
