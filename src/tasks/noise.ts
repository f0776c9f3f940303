import { XpatchError } from '../util/errors.js';
import { Random } from '../util/random.js';

/**
 * The paper's noisy instructions: letters swapped with their right neighbour inside words, at places drawn by seed.
 *
 * No letter moves twice and no two equal letters are swapped, so every swap shows; spaces, digits and punctuation (with
 * the final colon) stay where they are. Under one seed the places of fewer swaps are among those of more.
 *
 * @param swaps 0 gives the text back; the paper has 0, 1 and 2
 * @throws {XpatchError} INVALID_ARGUMENT when `swaps` is not a count, or the text has no room for so many
 */
export function swapLetters(text: string, swaps: number, seed: number): string {
  if (!Number.isSafeInteger(swaps) || swaps < 0) {
    throw new XpatchError(
      'INVALID_ARGUMENT',
      `The number of swaps must be a whole number from 0, not ${String(swaps)}.`,
    );
  }
  const letters = [...text];
  const isLetter = (i: number) => /^\p{L}$/u.test(letters[i] ?? '');
  // A letter with a combining mark after it is left alone: the mark would change hands.
  const isFree = (i: number) => isLetter(i) && !/^\p{M}$/u.test(letters[i + 1] ?? '');
  const places = [...letters.keys()].filter((i) => isFree(i) && isFree(i + 1) && letters[i] !== letters[i + 1]);
  const chosen: number[] = [];
  for (const place of new Random(seed, 'swap-letters', text).sample(places)) {
    if (chosen.length < swaps && chosen.every((other) => Math.abs(other - place) > 1)) chosen.push(place);
  }
  if (chosen.length < swaps) {
    const message = `${JSON.stringify(text)} has no room for ${swaps} swaps of neighbouring letters under seed ${seed}`;
    throw new XpatchError('INVALID_ARGUMENT', `${message}: ask for ${chosen.length} at most.`);
  }
  for (const i of chosen) [letters[i], letters[i + 1]] = [letters[i + 1] as string, letters[i] as string];
  return letters.join('');
}
