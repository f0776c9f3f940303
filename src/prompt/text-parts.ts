import type { TextPart } from './types.js';

/** Parts of one text in turn: as written, literal, as written, ... Neighbours of a kind become one. */
export function textRuns(parts: readonly TextPart[]): string[] {
  const runs = [''];
  for (const part of parts) {
    const literal = typeof part !== 'string';
    if (literal !== (runs.length % 2 === 0)) runs.push('');
    runs[runs.length - 1] += literal ? part.literal : part;
  }
  return runs;
}
