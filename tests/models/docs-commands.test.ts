// The shell lines of docs/taking-apart.md and docs/hooks.md, in their order, as someone types them who reads along.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../src/util/package-root.js';
import { xpatch } from '../command.js';

/** Smaller here than there, to take seconds: more options by the line's beginning. */
const LESS: Record<string, string[]> = {
  'xpatch circuit function-vector': ['--prompts', '3', '--corrupt-prompts', '2'],
  'xpatch circuit heads': ['--tasks', 'country-capital,food-color', '--prompts', '2'],
};
/** Not run: it measures for minutes. */
const LONG = 'npm run bench';

const folder = mkdtempSync(join(tmpdir(), 'xpatch-docs-'));
const before = process.cwd();
beforeAll(() => {
  symlinkSync(join(PACKAGE_ROOT, 'data'), join(folder, 'data'), 'dir');
  process.chdir(folder);
});
afterAll(() => {
  process.chdir(before);
  rmSync(folder, { recursive: true, force: true });
});

/** Lines of indented blocks that begin with a command, each with those that continue it. */
function linesOf(document: string): string[] {
  const text = readFileSync(join(PACKAGE_ROOT, 'docs', document), 'utf8');
  return [...text.matchAll(/^ {4}((?:xpatch|printf|npm) (?:.*\\\n)*.*)$/gm)].map(([, line = '']) => line);
}

/** The words of a line, as the shell splits them. */
function wordsOf(line: string): string[] {
  const script = `for word in ${line}\ndo printf '%s\\0' "$word"\ndone`;
  return execFileSync('sh', ['-c', script], { encoding: 'utf8' }).split('\0').slice(0, -1);
}

describe.each([
  ['taking-apart.md', 12],
  ['hooks.md', 8],
])('%s', (document, count) => {
  const lines = linesOf(document);

  test('has as many lines as are found', () => {
    expect(lines).toHaveLength(count);
  });

  test.each(lines.filter((line) => !line.startsWith(LONG)))('%s', async (line) => {
    if (!line.startsWith('xpatch')) {
      execFileSync('sh', ['-c', line]);
      return;
    }
    const less = Object.keys(LESS).find((start) => line.startsWith(start)) ?? '';
    const { code, stdout, stderr } = await xpatch([...wordsOf(line).slice(1), ...(LESS[less] ?? [])]);
    expect([code, stderr]).toEqual([0, expect.not.stringMatching(/^xpatch: [A-Z_]+:/m)]);
    expect(stdout).not.toBe('');
  });
});

test('steering shows what the text says', async () => {
  const line = linesOf('taking-apart.md').find((one) => one.startsWith('xpatch steer')) ?? '';
  const { stdout } = await xpatch([...wordsOf(line).slice(1), '--json']);
  const texts = JSON.parse(stdout).answers.map(({ text }: { text: string }) => text.trim());
  expect(texts).toEqual(['Euro', 'Fin', 'Helsinki']);
});
