import { expect, test } from '@jest/globals';
import type { Io } from '../../src/cli/io.js';
import { Terminal } from '../../src/cli/terminal.js';
import { XpatchError } from '../../src/util/errors.js';
import { printable } from '../../src/util/printable.js';
import { Collected } from '../command.js';

const STACK = { json: false, stack: true };

test('what steers a terminal or turns text around is written out, everything else stays', () => {
  expect(printable('a\x1b[2Jb\u202ec\u2028d\n\x9b')).toBe('a\\u{1b}[2Jb\\u{202e}c\\u{2028}d\\u{a}\\u{9b}');
  expect(printable(`\u200b${String.fromCharCode(0xd800)}\u{e0041}`)).toBe('\\u{200b}\\u{d800}\\u{e0041}');
  for (const text of ['Q:⏎ „São Tomé“ — 東京 🍕 \u0928\u093f', '']) expect(printable(text)).toBe(text);
});

test('texts of anybody are printed like that, line by line, as results, errors, progress and JSON', async () => {
  const [out, err] = [new Collected(), new Collected()];
  const io = { stdout: out, stderr: err, env: {} } as unknown as Io;
  const terminal = new Terminal([], io);
  const evil = '\u202eevil\x1b]0;title\x07\x9b1A\r\u2028';
  terminal.print(`a\t${evil}\nb\n`);
  terminal.printJson({ [evil]: `${evil}\n` });
  expect(terminal.report(new XpatchError('TASK_INVALID', `the item "${evil}" is there\ntwice`), STACK)).toBe(1);
  terminal.progress({ json: false, quiet: false }).note(evil);
  expect(await terminal.close(0)).toBe(0);
  const [first, second, json] = out.text.split('\n');
  expect([first, second]).toEqual(['a\t\\u{202e}evil\\u{1b}]0;title\\u{7}\\u{9b}1A\\u{d}\\u{2028}', 'b']);
  expect(JSON.parse(json as string)).toEqual({ [evil]: `${evil}\n` });
  expect(err.text).toMatch(/^xpatch: TASK_INVALID: the item "\\u\{202e\}evil.* is there\ntwice\n/);
  for (const { text } of [out, err]) expect(text.replace(/[\n\t]/g, '')).not.toMatch(/[\p{C}\u2028]/u);
});
