import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import type { OutputStream } from '../../src/cli/io.js';
import { Output } from '../../src/cli/output.js';
import { ProgressLine } from '../../src/cli/progress.js';
import { RunRate } from '../../src/cli/run-rate.js';

beforeEach(() => void jest.useFakeTimers());
afterEach(() => void jest.useRealTimers());

function stream(isTTY: boolean) {
  const written: string[] = [];
  const write = (text: string) => written.push(text) > 0;
  return {
    written,
    output: new Output({ isTTY, columns: 100, write, on: () => undefined } as unknown as OutputStream),
  };
}

test.each([
  [true, ' ████░░░░░░░░░░░░ 25 %, 3 of 12'],
  [false, ' 25 %, 3 of 12\n'],
])('how far it is, on a terminal (%s) as a bar too, and nothing in the first two seconds', (isTTY, expected) => {
  const { written, output } = stream(isTTY);
  const line = new ProgressLine(true, output);
  line.update('test queries', 0.25, '3 of 12');
  jest.advanceTimersByTime(1900);
  expect(written).toEqual([]);
  jest.advanceTimersByTime(5000);
  expect(written.at(-1)).toContain(`xpatch: test queries${expected}`);
  line.update('test queries', 1, '12 of 12');
  jest.advanceTimersByTime(5000);
  expect(written.at(-1)).toContain(isTTY ? `${'█'.repeat(16)} 100 %` : ' 100 %');
  line.done();
  expect(jest.getTimerCount()).toBe(0);
});

test('a note is said as often as it comes, one of many prompts once', () => {
  const { written, output } = stream(false);
  const line = new ProgressLine(true, output);
  for (const text of ['one', 'one']) line.note(text);
  for (const text of ['prompt 1 of 20 is long', 'two', 'prompt 7 of 20 is long']) line.noteOnce(text);
  const said = ['one', 'one', 'prompt 1 of 20 is long', 'two'];
  expect(written).toEqual(said.map((text) => `xpatch: ${text}\n`));
});

test('a rate is that of the last half minute', () => {
  const rate = new RunRate();
  expect(rate.at(0, 100, 0)).toEqual({});
  expect(rate.at(10, 100, 1000)).toEqual({ perSecond: 10, left: 9 });
  for (let second = 2; second <= 60; second++) rate.at(10 + second, 1000, second * 1000);
  expect(rate.at(71, 1000, 61_000).perSecond).toBeCloseTo(1, 1);
  rate.reset();
  expect(rate.at(71, 1000, 62_000)).toEqual({});
});
