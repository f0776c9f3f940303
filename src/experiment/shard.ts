import { createHash } from 'node:crypto';
import { XpatchError } from '../util/errors.js';
import type { Cell } from './study.js';
import type { QueryKey } from './types.js';

/** One of `of` parts of an experiment, `index` from 1. */
export interface Shard {
  readonly index: number;
  readonly of: number;
  /** Only the queries that choose the layer, which are then divided too. Defaults to all of them, and a part of the test. */
  readonly stage?: 'validation';
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

/** Its name in manifests and messages: `2/5`, `2/5 of the validation`. */
export function nameOfShard({ index, of, stage }: Shard): string {
  return `${index}/${of}${stage === undefined ? '' : ` of the ${stage}`}`;
}

/** Whether a run is a shard of one stage: its tables and its report are made when all of them are merged. */
export function isToMerge({ shard, layerFrom }: { readonly shard?: Shard; readonly layerFrom?: unknown }): boolean {
  return shard !== undefined && (shard.stage !== undefined || layerFrom !== undefined);
}

/**
 * Which queries belong to a shard; all of them without one.
 *
 * Test queries are dealt out by item, in the order of its hash: everything that is asked about one item (all conditions, layers, tasks
 * and seeds) is in the same shard, so pictures and prefixes are read once, and comparisons of conditions stay paired. Validation
 * queries are asked by every shard, so that shards need nothing from each other; a shard of the validation has a run of them
 * in the order of the experiment, so that most vectors are made by one shard alone.
 */
export function membersOf(
  shard: Shard | undefined,
  cells: readonly Pick<Cell, 'split'>[],
): (query: Pick<QueryKey, 'stage' | 'task' | 'seed' | 'item'>) => boolean {
  if (shard === undefined) return () => true;
  if (shard.stage === 'validation') {
    const keys = cells.flatMap(({ split: { task, seed, validation } }) =>
      validation.map(({ input: item }) => keyIn({ task: task.name, seed, item })),
    );
    const own = partOf(
      keys.map((key) => [key, 1]),
      shard,
    );
    return (query) => query.stage === 'validation' && own.has(keyIn(query));
  }
  const asked = new Map<string, number>();
  for (const { split } of cells) for (const { input } of split.test) asked.set(input, (asked.get(input) ?? 0) + 1);
  const order = new Map([...asked.keys()].map((item) => [item, createHash('sha256').update(item).digest('hex')]));
  const dealt = [...asked].sort(([a], [b]) => ((order.get(a) as string) < (order.get(b) as string) ? -1 : 1));
  const own = partOf(dealt, shard);
  return ({ stage, item }) => stage === 'validation' || own.has(item);
}

const keyIn = ({ task, seed, item }: Pick<QueryKey, 'task' | 'seed' | 'item'>) => JSON.stringify([task, seed, item]);

/** One of several stretches of a list with equal weight, as far as its entries allow. */
function partOf(list: readonly (readonly [key: string, weight: number])[], { index, of }: Shard): Set<string> {
  const total = list.reduce((sum, [, weight]) => sum + weight, 0);
  let before = 0;
  const own = list.filter(([, weight]) => {
    const middle = before + weight / 2;
    before += weight;
    return Math.floor((middle / total) * of) === index - 1;
  });
  return new Set(own.map(([key]) => key));
}
