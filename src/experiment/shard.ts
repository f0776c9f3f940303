import type { TaskItem } from '../tasks/task.js';
import { XpatchError } from '../util/errors.js';
import { batchesOf, hashOfItem } from './batches.js';
import type { Cell } from './study.js';
import type { Experiment, QueryKey } from './types.js';

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
 * Queries are dealt out by batch (`batchesOf`), so that answers are those of one process to the last digit. The test's are in the order
 * of the hash of their items: what several tasks and seeds ask about one item is mostly in the same shard, so that pictures
 * are read once. Validation queries are asked by every shard, so that shards need nothing from each other; a shard of the validation
 * has a run of them in the order of the experiment, so that most vectors are made by one shard alone.
 */
export function membersOf(
  shard: Shard | undefined,
  { experiment, cells }: { readonly experiment: Experiment; readonly cells: readonly Pick<Cell, 'split'>[] },
  nLayers: number,
): (query: Pick<QueryKey, 'stage' | 'task' | 'seed' | 'item'>) => boolean {
  if (shard === undefined) return () => true;
  const dealt = shard.stage ?? 'test';
  const batches = cells.flatMap((cell) => {
    const { task, seed } = cell.split;
    return batchesOf({ experiment }, cell, dealt, nLayers).map((items) => ({
      hash: hashOfItem(items[0] as TaskItem),
      keys: items.map(({ input: item }) => keyIn({ task: task.name, seed, item })),
    }));
  });
  if (dealt === 'test') batches.sort((a, b) => (a.hash < b.hash ? -1 : a.hash > b.hash ? 1 : 0));
  const own = partOf(
    batches.map(({ keys }) => keys),
    shard,
  );
  const isOwn = (query: Pick<QueryKey, 'task' | 'seed' | 'item'>) => own.has(keyIn(query));
  if (dealt === 'validation') return (query) => query.stage === 'validation' && isOwn(query);
  return (query) => query.stage === 'validation' || isOwn(query);
}

const keyIn = ({ task, seed, item }: Pick<QueryKey, 'task' | 'seed' | 'item'>) => JSON.stringify([task, seed, item]);

/** What one of several stretches of a list holds, which are equally long as far as its entries allow. */
function partOf(list: readonly (readonly string[])[], { index, of }: Shard): Set<string> {
  const total = list.reduce((sum, { length }) => sum + length, 0);
  let before = 0;
  const own = list.filter(({ length }) => {
    const middle = before + length / 2;
    before += length;
    return Math.floor((middle / total) * of) === index - 1;
  });
  return new Set(own.flat());
}
