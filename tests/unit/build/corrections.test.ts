import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { CORRECTIONS, correct } from '../../../install/corrections.mjs';

let root: string;

const FILES = [...new Set(CORRECTIONS.map(({ file }) => file))];

/** A file with a line for each of its corrections. */
const linesOf = (file: string, line: (correction: (typeof CORRECTIONS)[number]) => string) =>
  CORRECTIONS.filter((correction) => correction.file === file)
    .map(line)
    .join('\n');

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'xpatch-corrections-'));
});

afterEach(() => {
  rmSync(root, { recursive: true });
});

function put(text: (from: string) => string) {
  for (const file of FILES) {
    mkdirSync(dirname(join(root, file)), { recursive: true });
    writeFileSync(
      join(root, file),
      linesOf(file, ({ from }) => text(from)),
    );
  }
}

test('every correction replaces its text', () => {
  put((from) => `before ${from} after`);
  correct(root);
  for (const file of FILES) {
    expect(readFileSync(join(root, file), 'utf8')).toBe(linesOf(file, ({ to }) => `before ${to} after`));
  }
});

test('a llama.cpp in which the text changed, or stands twice, stops the build', () => {
  put(() => 'another text');
  expect(() => correct(root)).toThrow(/of llama\.cpp has changed: the correction of .* no longer fits/);
  put((from) => `${from} ${from}`);
  expect(() => correct(root)).toThrow(/no longer fits/);
});
