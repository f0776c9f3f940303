import { groupBy } from '../util/group.js';

/** What a finding is about; see docs/evaluation.md. */
type FindingKind =
  | 'invalid-item'
  | 'missing-picture'
  | 'broken-picture'
  | 'contradiction'
  | 'leak'
  | 'duplicate'
  | 'same-picture'
  | 'near-duplicate'
  | 'one-answer'
  | 'blanks'
  | 'answer-in-input'
  | 'answer-prefix'
  | 'shared-first-token'
  | 'no-first-token'
  | 'too-few-items';

export interface Finding {
  readonly level: 'error' | 'warning';
  readonly kind: FindingKind;
  /** One line without a full stop; quotes what the file says as JSON strings. */
  readonly message: string;
  /** Places in the file, from 0; none when it is about the whole. */
  readonly items: readonly number[];
}

/** How answers begin behind a query in the tokens of some model. */
export interface FirstTokens {
  /** The end of the query, quoted, such as `"A:"`. */
  readonly end: string;
  /** The first token of an answer that shows something; undefined when it has none of its own. */
  readonly of: (answer: string) => Promise<{ readonly id: number; readonly text: string } | undefined>;
}

export function finding(
  level: Finding['level'],
  kind: FindingKind,
  items: readonly number[],
  message: string,
): Finding {
  return { level, kind, message, items };
}

/** Groups of two or more with equal keys, in the order of their first members. */
export function repeated<T>(values: readonly T[], key: (value: T) => string): T[][] {
  return [...groupBy(values, key).values()].filter((group) => group.length > 1);
}

/** `items 3, 8 and 12` */
export function name(group: readonly { readonly index: number }[]): string {
  const places = group.map(({ index }) => String(index));
  return places.length === 1 ? `item ${places[0]}` : `items ${places.slice(0, -1).join(', ')} and ${places.at(-1)}`;
}

/** A JSON string, cut where it would fill the line. */
export function quote(text: string): string {
  const letters = [...text];
  return JSON.stringify(letters.length > 60 ? `${letters.slice(0, 59).join('')}…` : text);
}

/** The first few, quoted, and how many more there are. */
export function quoteSome(texts: readonly string[]): string {
  const shown = texts.slice(0, 4).map(quote).join(', ');
  return texts.length > 4 ? `${shown} and ${texts.length - 4} more` : shown;
}
