import type { PromptPart, TextPart } from './types.js';

/** Text of a part, literal or not. */
export const textOf = (part: TextPart): string => (typeof part === 'string' ? part : part.literal);

export const isText = (part: PromptPart): part is TextPart => typeof part === 'string' || 'literal' in part;

/** Parts of one text in turn: as written, literal, as written, ... Neighbours of a kind become one. */
export function textRuns(parts: readonly TextPart[]): string[] {
  const runs = [''];
  for (const part of parts) {
    const literal = typeof part !== 'string';
    if (literal !== (runs.length % 2 === 0)) runs.push('');
    runs[runs.length - 1] += textOf(part);
  }
  return runs;
}
