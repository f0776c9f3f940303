import { expect, jest, test } from '@jest/globals';
import { reportError } from '../../src/cli/errors.js';
import { XpatchError } from '../../src/util/errors.js';
import { printable } from '../../src/util/printable.js';

test('what steers a terminal or turns text around is written out, everything else stays', () => {
  expect(printable('a\x1b[2Jb\u202ec\u2028d\n\x9b')).toBe('a\\u{1b}[2Jb\\u{202e}c\\u{2028}d\\u{a}\\u{9b}');
  expect(printable(`\u200b${String.fromCharCode(0xd800)}\u{e0041}`)).toBe('\\u{200b}\\u{d800}\\u{e0041}');
  for (const text of ['Q:⏎ „São Tomé“ — 東京 🍕 \u0928\u093f', '']) expect(printable(text)).toBe(text);
});

test('an error is printed like that, line by line', () => {
  const write = jest.spyOn(process.stderr, 'write').mockReturnValue(true);
  const error = new XpatchError('TASK_INVALID', 'the item "\u202eevil\x1b[1A" is there\ntwice');
  expect(reportError(error, { json: false, stack: true })).toBe(1);
  const printed = write.mock.calls.map(([text]) => text).join('');
  write.mockRestore();
  expect(printed).toMatch(/^xpatch: TASK_INVALID: the item "\\u\{202e\}evil\\u\{1b\}\[1A" is there\ntwice\n/);
  expect(printed.replaceAll('\n', '')).not.toMatch(/\p{C}/u);
});
