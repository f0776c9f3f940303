// Math.max(...list) puts the list on the stack, which ends at some 120 000 entries: no matter for a table, but positions, lines and
// edits of a pass may be more.

export const largest = (numbers: readonly number[]): number =>
  numbers.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);

export const smallest = (numbers: readonly number[]): number =>
  numbers.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
