// Every function of the public interface with arguments of wrong types: coded errors, and a process that lives on.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';
import { faultFolder } from './helpers.js';

/** XPATCH_WRONG_CALLS=1000 for the long version; there are some 80 000. XPATCH_SEED for others. */
const CALLS = Number(process.env.XPATCH_WRONG_CALLS ?? 300);
const SEED = process.env.XPATCH_SEED ?? '1';

const folder = faultFolder();

test(
  `${CALLS} calls with wrong arguments: no error without a code, no end of the process, no call that hangs`,
  () => {
    const file = join(folder, 'call');
    const cwd = join(folder, 'work');
    mkdirSync(cwd);
    const script = join(PACKAGE_ROOT, 'tests', 'faults', 'wrong-calls.mjs');
    const { status, signal, stdout, stderr } = spawnSync(process.execPath, [script, String(CALLS), SEED, file], {
      cwd,
      env: { ...process.env, XPATCH_CACHE: join(folder, 'cache') },
      encoding: 'utf8',
      maxBuffer: 1 << 28,
      timeout: 100_000 + CALLS * 300,
    });
    const last = existsSync(file) ? readFileSync(file, 'utf8') : 'before the first';
    expect({ status, signal, last, stderr }).toEqual({ status: 0, signal: null, last: 'the end', stderr: '' });
    const outcome = JSON.parse(stdout);
    expect(outcome.uncoded).toEqual([]);
    expect(outcome.tried).toBe(Math.min(CALLS, outcome.of));
    expect(outcome.refused.INVALID_ARGUMENT).toBeGreaterThan(CALLS / 2);
  },
  110_000 + CALLS * 300,
);
