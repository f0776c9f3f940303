import type { TaskItem } from '../tasks/task.js';
import { XpatchError } from '../util/errors.js';
import { batchesOf, hashOfItem, linesOfItem } from './batches.js';
import type { Cell, Study } from './study.js';
import type { QueryKey } from './types.js';
import { vectorOf, weightOf } from './vectors.js';

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
 * has a stretch of them in the order of the experiment, so that most vectors, those of the test included, are made by one shard alone.
 */
export function membersOf(
  shard: Shard | undefined,
  study: Pick<Study, 'experiment' | 'cells'>,
  nLayers: number,
): (query: Pick<QueryKey, 'stage' | 'task' | 'seed' | 'item'>) => boolean {
  if (shard === undefined) return () => true;
  const dealt = shard.stage ?? 'test';
  const lines = linesOfItem(study, dealt, nLayers);
  const batches = study.cells.flatMap((cell) => {
    const { task, seed } = cell.split;
    return batchesOf(study, cell, dealt, nLayers).map((items, i) => ({
      hash: hashOfItem(items[0] as TaskItem),
      keys: items.map(({ input: item }) => keyIn({ task: task.name, seed, item })),
      weight: items.length * lines + (dealt === 'validation' && i === 0 ? linesOfVectors(study, cell) : 0),
    }));
  });
  if (dealt === 'test') batches.sort((a, b) => (a.hash < b.hash ? -1 : a.hash > b.hash ? 1 : 0));
  const own = new Set(partOf(batches, shard).flatMap(({ keys }) => keys));
  const isOwn = (query: Pick<QueryKey, 'task' | 'seed' | 'item'>) => own.has(keyIn(query));
  if (dealt === 'validation') return (query) => query.stage === 'validation' && isOwn(query);
  return (query) => query.stage === 'validation' || isOwn(query);
}

const keyIn = ({ task, seed, item }: Pick<QueryKey, 'task' | 'seed' | 'item'>) => JSON.stringify([task, seed, item]);

/** One of several stretches of a list, which weigh the same as far as its entries allow. */
function partOf<T extends { readonly weight: number }>(list: readonly T[], { index, of }: Shard): T[] {
  const total = list.reduce((sum, { weight }) => sum + weight, 0);
  let before = 0;
  return list.filter(({ weight }) => {
    const middle = before + weight / 2;
    before += weight;
    return Math.floor((middle / total) * of) === index - 1;
  });
}

/** Roughly, and not measured: by the sizes of gemma-3-270m-xpatch an example in text costs 1.3 lines of the validation, one with a picture 3. */
const LINES_AN_EXAMPLE = 2;

/** How many lines of the validation cost as much as the vectors of a cell. */
function linesOfVectors(study: Pick<Study, 'experiment' | 'cells'>, cell: Cell): number {
  const { conditions, shots } = study.experiment;
  const weights = new Map<string, number>();
  for (const condition of conditions) {
    const vector = vectorOf(study, cell, condition);
    if (vector?.cell === cell) weights.set(vector.name, weightOf(vector));
  }
  return [...weights.values()].reduce((sum, prompts) => sum + prompts * (shots + 1) * LINES_AN_EXAMPLE, 0);
}
