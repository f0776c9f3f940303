import { describe, expect, test } from '@jest/globals';
import { swapLetters } from '../../src/tasks/noise.js';
import { listTasks, loadTask } from '../../src/tasks/task.js';
import { expectError } from './helpers.js';

/** Places where the texts differ. */
const changed = (a: string, b: string) => [...a].flatMap((letter, i) => (letter === [...b][i] ? [] : [i]));

describe('swapped letters', () => {
  test('of the shipped instructions: pairs of neighbours inside words, the rest untouched', async () => {
    for (const name of await listTasks()) {
      const { instruction = '' } = await loadTask(name);
      for (let seed = 0; seed < 200; seed++) {
        for (const swaps of [0, 1, 2]) {
          const noisy = swapLetters(instruction, swaps, seed);
          const places = changed(instruction, noisy);
          expect(places.length).toBe(2 * swaps);
          for (let i = 0; i < places.length; i += 2) {
            const [first, second] = [places[i] as number, places[i + 1] as number];
            expect(second).toBe(first + 1);
            expect(noisy.slice(first, first + 2)).toBe(`${instruction[second]}${instruction[first]}`);
            expect(noisy.slice(first, first + 2)).toMatch(/^[A-Za-z]{2}$/);
          }
          expect(noisy.endsWith(':')).toBe(true);
        }
      }
    }
  });

  test('are the same for a seed, others for other seeds; one swap is among two', () => {
    const text = 'The capital city of the country:';
    expect(swapLetters(text, 2, 7)).toBe(swapLetters(text, 2, 7));
    const versions = Array.from({ length: 400 }, (_, seed) => swapLetters(text, 1, seed));
    // All 20 pairs of neighbours (none of them equal) come up: each is missed by 400 draws with probability 1e-9.
    expect(new Set(versions).size).toBe(20);
    for (let seed = 0; seed < 50; seed++) {
      const one = changed(text, swapLetters(text, 1, seed));
      expect(changed(text, swapLetters(text, 2, seed))).toEqual(expect.arrayContaining(one));
    }
  });

  test('leave equal letters, blanks, digits, marks and pairs of surrogates alone', async () => {
    expect(swapLetters('aab:', 1, 1)).toBe('aba:');
    expect(swapLetters('aa a1b\u{1f600}\u{1f600}:', 0, 1)).toBe('aa a1b\u{1f600}\u{1f600}:');
    expect(swapLetters('ab e\u0301f:', 1, 3)).toBe('ba e\u0301f:');
    expect(swapLetters('\u{10400}\u{10401}:', 1, 3)).toBe('\u{10401}\u{10400}:');
    await expectError(() => swapLetters('a b aa 12 :', 1, 1), 'INVALID_ARGUMENT', /no room for 1 swaps.*0 at most/);
    await expectError(() => swapLetters('The:', 2, 1), 'INVALID_ARGUMENT', /no room for 2/);
    await expectError(() => swapLetters('The:', -1, 1), 'INVALID_ARGUMENT', /whole number from 0/);
    await expectError(() => swapLetters('The:', 0.5, 1), 'INVALID_ARGUMENT', /whole number from 0/);
  });
});
