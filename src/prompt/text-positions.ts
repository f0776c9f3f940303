import { XpatchError } from '../util/errors.js';
import type { TextPositions } from './types.js';

/**
 * The positions of the tokens that a text consists of. The space that many tokenizers put into a word's first token may be there;
 * anything else that a token holds besides the text is ambiguous.
 *
 * @param pieces bytes of each position's token; a row of a picture has none
 * @throws {XpatchError} POSITION_OUT_OF_RANGE where the prompt does not have it; MARK_AMBIGUOUS where a token holds more than the text
 */
export function textPositions(
  pieces: readonly (Uint8Array | undefined)[],
  { text, occurrence = -1 }: TextPositions,
): number[] {
  const wanted = Buffer.from(text);
  if (wanted.length === 0 || !Number.isInteger(occurrence) || occurrence === 0) {
    const problem = wanted.length === 0 ? 'The text to look for is empty' : `There is no occurrence ${occurrence}`;
    throw new XpatchError('INVALID_ARGUMENT', `${problem}. Name a text of the prompt, and which one from 1 or -1.`);
  }
  const { bytes, ends } = joined(pieces);
  const startOf = (i: number) => ends[i - 1] ?? 0;
  const found: number[] = [];
  for (let at = bytes.indexOf(wanted); at >= 0; at = bytes.indexOf(wanted, at + 1)) found.push(at);
  const from = found.at(occurrence > 0 ? occurrence - 1 : occurrence);
  if (from === undefined) {
    const times = found.length === 0 ? 'not at all' : `${found.length} ${found.length === 1 ? 'time' : 'times'}`;
    throw new XpatchError('POSITION_OUT_OF_RANGE', `The prompt has ${JSON.stringify(text)} ${times}.`);
  }
  const to = from + wanted.length;
  const positions = [...pieces.keys()].filter((i) => startOf(i) < to && (ends[i] as number) > from);
  const before = bytes.subarray(startOf(positions[0] as number), from).toString();
  if (before.trim() === '' && ends[positions.at(-1) as number] === to) return positions;
  const shown = positions.map((i) => JSON.stringify(new TextDecoder().decode(pieces[i]))).join(' ');
  throw new XpatchError(
    'MARK_AMBIGUOUS',
    `The tokens of ${JSON.stringify(text)} contain more text: ${shown}. Name all of their text, or a position by its number.`,
  );
}

/** The bytes one after another, and where each position's end. A row of a picture is a NUL, which no text has. */
function joined(pieces: readonly (Uint8Array | undefined)[]): { bytes: Buffer; ends: number[] } {
  let length = 0;
  const chunks = pieces.map((piece = Uint8Array.of(0)) => piece);
  const ends = chunks.map((chunk) => (length += chunk.length));
  return { bytes: Buffer.concat(chunks), ends };
}
