import { createHash } from 'node:crypto';
import { XpatchError } from '../util/errors.js';
import type { QueryKey } from './types.js';

/** One of `of` parts of an experiment, `index` from 1. */
export interface Shard {
  readonly index: number;
  readonly of: number;
}

/**
 * The shard that a text names.
 *
 * @param text `2/5`: the second of five
 * @throws {XpatchError} INVALID_ARGUMENT
 */
export function parseShard(text: string): Shard {
  const [, index, of] = /^(\d{1,6})\/(\d{1,6})$/.exec(text.trim()) ?? [];
  const shard = { index: Number(index), of: Number(of) };
  if (index !== undefined && shard.index >= 1 && shard.index <= shard.of) return shard;
  throw new XpatchError(
    'INVALID_ARGUMENT',
    `A shard is given as 2/5, the second of five, not ${JSON.stringify(text)}.`,
  );
}

/**
 * Whether a query belongs to a shard. Test queries are dealt out by a hash of their item: everything that is asked about one item
 * (all conditions, layers, tasks and seeds) is in the same shard, so pictures and prefixes are read once, and comparisons of
 * conditions stay paired. Validation queries, which choose the layer, are asked by every shard: the layer does not depend on
 * the shard, and shards need nothing from each other. With fixed layers there are none.
 */
export function inShard({ index, of }: Shard, { stage, item }: Pick<QueryKey, 'stage' | 'item'>): boolean {
  if (stage === 'validation') return true;
  return createHash('sha256').update(item).digest().readUInt32BE() % of === index - 1;
}
