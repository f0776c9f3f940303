import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../src/util/package-root.js';
import { xpatch } from '../command.js';

test('the command line runs in this process: help, version, a result, and wrong arguments', async () => {
  const help = await xpatch(['--help']);
  expect(help).toMatchObject({ code: 0, stderr: '' });
  expect(help.stdout).toMatch(/^xpatch <command>\n/);
  expect(await xpatch(['capture', '--help'])).toMatchObject({ code: 0, stderr: '' });
  const { version } = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8'));
  expect(await xpatch(['--version'])).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
  const presets = await xpatch(['eval', '--json']);
  expect(JSON.parse(presets.stdout).presets[0].name).toBe('main');
  const wrong = {
    code: 2,
    stdout: '',
    stderr: expect.stringMatching(/^xpatch: INVALID_ARGUMENT: .*See `xpatch.*--help`/),
  };
  for (const args of [['eval', '--nonsense'], ['nonsense'], ['models']]) expect(await xpatch(args)).toEqual(wrong);
  const error = await xpatch(['capture', '-m', 'demo', '--prompt', 'Q', '-o', 'x', '--layers', 'b', '--json']);
  expect(error).toMatchObject({ code: 2, stderr: '' });
  expect(JSON.parse(error.stdout).error.code).toBe('INVALID_ARGUMENT');
});

test('commands reach the process only through what main is handed', () => {
  const folder = join(PACKAGE_ROOT, 'src', 'cli');
  const own = /^(io|main|doctor-child|eval-child)\.ts$/;
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.ts') && !own.test(name))) {
    const text = readFileSync(join(folder, file), 'utf8');
    expect([file, text.match(/process\.(std\w+|exit\w*|argv|env)|console\.\w+/)?.[0]]).toEqual([file, undefined]);
  }
});
