import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
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
  const own = /^(io|main|doctor-child|eval-child|rpc-server-child)\.ts$/;
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.ts') && !own.test(name))) {
    const text = readFileSync(join(folder, file), 'utf8');
    expect([file, text.match(/process\.(std\w+|exit\w*|argv|env)|console\.\w+/)?.[0]]).toEqual([file, undefined]);
  }
});

describe('help', () => {
  test('is what `xpatch` alone, `help` and --help print', async () => {
    const all = await xpatch(['--help']);
    expect(await xpatch([])).toEqual(all);
    expect(await xpatch(['help'])).toEqual(all);
    const one = await xpatch(['run', '--help']);
    expect(one.stdout).toContain('--max-tokens');
    expect(await xpatch(['help', 'run'])).toEqual(one);
    expect((await xpatch(['help', 'models', 'pull'])).stdout).toMatch(/^xpatch models pull <models\.\.>\n/);
  });

  test.each([60, 80, 100, 200])('fits %i columns, between words', async (columns) => {
    for (const command of ['', 'run', 'eval', 'models convert', 'data import']) {
      const args = [...command.split(' ').filter(Boolean), '--help'];
      const wide = (await xpatch(args, { columns: 120 })).stdout;
      const { stdout } = await xpatch(args, { columns });
      const [help = '', examples = ''] = stdout.split('Examples:');
      for (const line of help.split('\n')) expect(line.length).toBeLessThanOrEqual(Math.min(columns, 120));
      expect(stdout.split(/\s+/)).toEqual(wide.split(/\s+/));
      if (command === '')
        expect(examples).toContain('  xpatch sweep -m demo --prompt "Q:Peru\\nA:" --vector capital.safetensors\n');
    }
  });
});

test('the model comes from XPATCH_MODEL where none is named, the prompt from stdin with -p -', async () => {
  const env = { XPATCH_MODEL: 'none-such.gguf' };
  const named = { code: 1, stderr: expect.stringMatching(/FILE_NOT_FOUND: .*none-such\.gguf/) };
  expect(await xpatch(['run', '-p', 'Q'], { env })).toMatchObject(named);
  expect(await xpatch(['run', '-p', '-'], { env, stdin: 'Q\n' })).toMatchObject(named);
  expect(await xpatch(['run', '-m', 'other.gguf', '-p', 'Q'], { env })).toMatchObject({
    stderr: expect.stringMatching(/other\.gguf/),
  });
  expect(await xpatch(['run', '-p', 'Q'])).toMatchObject({
    code: 2,
    stderr: expect.stringMatching(/--model is missing/),
  });
  // a mark without its picture: the text of stdin is what is looked at
  const marks = await xpatch(['run', '-p', '-'], { env, stdin: 'Q:<image>\\n<image>' });
  expect(marks.stderr).toMatch(/The prompt has 2 <image> and 0 --image/);
});

// yargs has ways of its own to read an option; what comes out of them is no longer what was typed.
test.each([
  ['an empty number, as of an unset variable', ['--strength', ''], /--strength must be a number/],
  ['an empty whole number', ['--seed='], /--seed must be a whole number from 0/],
  ['a number that is not decimal', ['--n-ctx', '0x10'], /--n-ctx must be a whole number from 1/],
  ['a text option with no- in front', ['--no-stop'], /There is no option --no-stop/],
  ['a file option with no- in front', ['--no-save-logits'], /There is no option --no-save-logits/],
  ['a number option with no- in front', ['--no-strength'], /There is no option --no-strength/],
  ['an option with a dot', ['--system.x=y'], /There is no option --system\.x/],
  ['a flag with a value', ['--literal=1'], /--literal takes no value, not "1"/],
  ['a flag with no- and a value', ['--no-bos=maybe'], /There is no option --no-bos/],
  ['arguments after --', ['--', '-n', '2'], /-- has no meaning here/],
])('%s is refused', async (_, args, message) => {
  const { code, stdout, stderr } = await xpatch(['run', '-m', 'none.gguf', '-p', 'Q', ...args]);
  expect([code, stdout, stderr]).toEqual([2, '', expect.stringMatching(message)]);
});

test.each([
  ['--temperature', '-1', /--temperature must be a number from 0/],
  ['--temperature', ' .5 ', /none\.gguf/],
  ['--temperature', '1e-1', /none\.gguf/],
  ['--n-ctx', '1e3', /none\.gguf/],
  ['--escape=false', '--bos=true', /none\.gguf/],
])('%s %s is read', async (name, value, message) => {
  expect((await xpatch(['run', '-m', 'none.gguf', '-p', 'Q', name, value])).stderr).toMatch(message);
});
