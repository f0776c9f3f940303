/** The word that was most likely meant by a mistyped one; undefined if none is near. */
export function closestTo(word: string, words: readonly string[]): string | undefined {
  const near = words
    .map((other) => ({ other, edits: editsBetween(word.toLowerCase(), other.toLowerCase()) }))
    .filter(({ other, edits }) => edits <= Math.max(2, Math.floor(other.length / 3)))
    // Words that have less than half in common are not slips of each other.
    .filter(({ other, edits }) => 2 * edits < Math.max(word.length, other.length) || edits === 0)
    .sort((a, b) => a.edits - b.edits);
  return near[0]?.other;
}

/** ` Did you mean …?` with the nearest word; empty if none is near. */
export function didYouMean(word: string, words: readonly string[]): string {
  const near = closestTo(word, words);
  return near === undefined ? '' : ` Did you mean ${near}?`;
}

/** Letters to put in, take out, replace or exchange with the next one (Damerau 1964). */
function editsBetween(a: string, b: string): number {
  if (a.length > 100 || b.length > 100) return Number.POSITIVE_INFINITY;
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++) {
      const replaced = (row[j] as number) + (a[i] === b[j] ? 0 : 1);
      const exchanged = j > 0 && a[i] === b[j - 1] && a[i - 1] === b[j] ? (before[j - 1] as number) + 1 : replaced;
      next.push(Math.min(replaced, exchanged, (row[j + 1] as number) + 1, (next[j] as number) + 1));
    }
    [before, row] = [row, next];
  }
  return row[b.length] as number;
}
