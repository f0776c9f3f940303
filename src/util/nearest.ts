/** The word that was most likely meant by a mistyped one; undefined if none is near. */
export function closestTo(word: string, words: readonly string[]): string | undefined {
  const near = words
    .map((other) => ({ other, edits: editsBetween(word.toLowerCase(), other.toLowerCase()) }))
    .filter(({ other, edits }) => edits <= Math.max(2, Math.floor(other.length / 3)))
    .sort((a, b) => a.edits - b.edits);
  return near[0]?.other;
}

/** ` Did you mean …?` with the nearest word; empty if none is near. */
export function didYouMean(word: string, words: readonly string[]): string {
  const near = closestTo(word, words);
  return near === undefined ? '' : ` Did you mean ${near}?`;
}

/** Letters to put in, take out or replace (Levenshtein 1966). */
export function editsBetween(a: string, b: string): number {
  if (a.length > 100 || b.length > 100) return Number.POSITIVE_INFINITY;
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++) {
      const replaced = (row[j] as number) + (a[i] === b[j] ? 0 : 1);
      next.push(Math.min(replaced, (row[j + 1] as number) + 1, (next[j] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}
