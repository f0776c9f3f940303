import type { Prompt } from '../prompt/prompt.js';
import { XpatchError } from '../util/errors.js';
import type { Model } from './model.js';

/**
 * The positions of the tokens that a text of a prompt consists of, such as a name or the `A:` of its last question. The blank that
 * many tokenizers put into a word's first token may be there; anything else that a token holds besides the text is ambiguous.
 *
 * @param text as the prompt has it
 * @param occurrence which one, from 1; negative from the end. Defaults to -1, the last one
 * @throws {XpatchError} POSITION_OUT_OF_RANGE where the prompt does not have it; MARK_AMBIGUOUS where a token holds more than the text
 */
export function textPositions(
  model: Pick<Model, 'tokenBytes' | 'detokenize'>,
  prompt: Pick<Prompt, 'tokens'>,
  text: string,
  occurrence = -1,
): number[] {
  const wanted = Buffer.from(text);
  if (wanted.length === 0 || !Number.isInteger(occurrence) || occurrence === 0) {
    const problem = wanted.length === 0 ? 'The text to look for is empty' : `There is no occurrence ${occurrence}`;
    throw new XpatchError('INVALID_ARGUMENT', `${problem}. Name a text of the prompt, and which one from 1 or -1.`);
  }
  const { bytes, starts } = bytesOf(model, prompt);
  const found: number[] = [];
  for (let at = bytes.indexOf(wanted); at >= 0; at = bytes.indexOf(wanted, at + 1)) found.push(at);
  const from = found.at(occurrence > 0 ? occurrence - 1 : occurrence);
  if (from === undefined) {
    const times = found.length === 0 ? 'not at all' : `${found.length} ${found.length === 1 ? 'time' : 'times'}`;
    throw new XpatchError('POSITION_OUT_OF_RANGE', `The prompt has ${JSON.stringify(text)} ${times}.`);
  }
  const to = from + wanted.length;
  const positions = [...starts.keys()].filter((i) => (starts[i] as number) < to && endOf(starts, bytes, i) > from);
  const [first = 0, last = 0] = [positions[0], positions.at(-1)];
  const before = bytes.subarray(starts[first], from).toString();
  if (before.trim() === '' && endOf(starts, bytes, last) === to) return positions;
  const pieces = positions.map((i) => JSON.stringify(model.detokenize([prompt.tokens[i] as number]))).join(' ');
  throw new XpatchError(
    'MARK_AMBIGUOUS',
    `The tokens of ${JSON.stringify(text)} hold more than it: ${pieces}. Name all of their text, or a position by its number.`,
  );
}

/** The bytes of a prompt's tokens one after another, and where each token begins. A row of a picture is a NUL, which no text has. */
function bytesOf(model: Pick<Model, 'tokenBytes'>, { tokens }: Pick<Prompt, 'tokens'>) {
  const starts: number[] = [];
  const chunks: Uint8Array[] = [];
  let length = 0;
  for (const token of tokens) {
    const chunk = token < 0 ? Uint8Array.of(0) : Uint8Array.from(model.tokenBytes([token]));
    starts.push(length);
    chunks.push(chunk);
    length += chunk.length;
  }
  return { bytes: Buffer.concat(chunks), starts };
}

function endOf(starts: readonly number[], bytes: Buffer, i: number): number {
  return starts[i + 1] ?? bytes.length;
}
