// What disposing gives back, and what happens where no thread can be started. Reads Linux' /proc.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';

/** XPATCH_CYCLES=1000 for the long version. */
const CYCLES = Number(process.env.XPATCH_CYCLES ?? 60);

function linesOf(script: string, ...args: string[]) {
  const path = join(PACKAGE_ROOT, 'tests', 'faults', script);
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--expose-gc', path, ...args], { encoding: 'utf8' });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}

test(
  `${CYCLES} times made and disposed: threads, descriptors and memory stay as they were`,
  () => {
    const [first, middle, last] = linesOf('cycles.mjs', String(CYCLES));
    for (const later of [middle, last]) {
      expect(later.threads).toBeLessThanOrEqual(first.threads + 1);
      expect(later.files).toBeLessThanOrEqual(first.files + 2);
      expect(later.megabytes).toBeLessThan(first.megabytes + 40);
    }
  },
  CYCLES * 5_000 + 120_000,
);

test('without the right to start threads: coded errors, and what has its threads goes on', () => {
  expect(linesOf('no-threads.mjs')).toEqual([
    { context: 'NATIVE_FAILURE', picture: expect.stringMatching(/^[A-Z_]+$/), model: 'NATIVE_FAILURE', pass: 'none' },
  ]);
});
