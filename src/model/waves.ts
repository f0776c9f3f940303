import type { PreparedRow } from './pass.js';
import { PrefixTree } from './prefix-tree.js';

/** Cells up to which prompts that share nothing are worth computing together, where no answers follow. */
export function worthwhileCells({ nEmbd }: { nEmbd: number }): number {
  return 2 * nEmbd;
}

/**
 * Cuts rows into groups that are computed together, in order; rows with a common start stay together if they are neighbours.
 *
 * Every row attends over (and masks) the cells of all others, which soon costs more than a larger batch saves. A row that shares most of
 * its cells stays with the others: elsewhere it would have to compute them again.
 */
export function* wavesOf(
  rows: readonly PreparedRow[],
  limits: {
    /** Cells of the cache, and those that each row needs for its answer. */
    cells: number;
    reserve: number;
    /** Cells up to which rows that share nothing go together. */
    worthwhile: number;
    /** Rows of the first group, and of the others. */
    first: number;
    rows: number;
  },
): Generator<PrefixTree> {
  let tree = new PrefixTree();
  let most = limits.first;
  for (const row of rows) {
    const cost = tree.cost(row);
    const cells = tree.cells + cost;
    const n = tree.rows.length + 1;
    const crowded = cells > limits.worthwhile && cost > row.prompt.length / 2;
    if (n > 1 && (crowded || cells + n * limits.reserve > limits.cells || n > most)) {
      yield tree;
      tree = new PrefixTree();
      most = limits.rows;
    }
    tree.add(row);
  }
  yield tree;
}
