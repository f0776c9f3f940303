import type { TaskItem } from '../tasks/task.js';
import { XpatchError } from '../util/errors.js';
import { batchesOf, hashOfItem, linesOfItem } from './batches.js';
import { type Cell, conditionsOf, type Study } from './study.js';
import type { Condition, QueryKey } from './types.js';
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
    // With its first query a part makes those of the test too (`conditionsToMake`).
    const [all, again] = [study.experiment.conditions, conditionsOf(study, dealt)];
    return batchesOf(study, cell, dealt, nLayers).map((items, i) => ({
      hash: hashOfItem(items[0] as TaskItem),
      keys: items.map(({ input: item }) => keyIn({ task: task.name, seed, item })),
      cell,
      weight: items.length * lines,
      vectors: dealt === 'validation' ? linesOfVectors(study, cell, i === 0 ? all : again) : 0,
    }));
  });
  if (dealt === 'test') batches.sort((a, b) => (a.hash < b.hash ? -1 : a.hash > b.hash ? 1 : 0));
  const own = new Set(partsOf(batches, shard.of)[shard.index - 1]?.flatMap(({ keys }) => keys));
  const isOwn = (query: Pick<QueryKey, 'task' | 'seed' | 'item'>) => own.has(keyIn(query));
  if (dealt === 'validation') return (query) => query.stage === 'validation' && isOwn(query);
  return (query) => query.stage === 'validation' || isOwn(query);
}

const keyIn = ({ task, seed, item }: Pick<QueryKey, 'task' | 'seed' | 'item'>) => JSON.stringify([task, seed, item]);

/** What is dealt out as one. */
interface Dealt {
  readonly cell: unknown;
  readonly weight: number;
  /** What a part that begins its cell here does besides. */
  readonly vectors: number;
}

/** A list in stretches of which the heaviest is as light as can be: all are needed before the run goes on. */
function partsOf<T extends Dealt>(list: readonly T[], of: number): T[][] {
  const upTo = (most: number) => {
    const parts: T[][] = [];
    let weight = 0;
    for (const [i, entry] of list.entries()) {
      const last = parts.at(-1);
      const added = entry.weight + (last?.at(-1)?.cell === entry.cell ? 0 : entry.vectors);
      // As many parts as there can be: none is empty that need not be.
      if (last && weight + added <= most && list.length - i > of - parts.length) {
        last.push(entry);
        weight += added;
      } else {
        parts.push([entry]);
        weight = entry.weight + entry.vectors;
      }
    }
    return parts;
  };
  let [low, high] = [0, list.reduce((sum, { weight, vectors }) => sum + weight + vectors, 0)];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (upTo(middle).length <= of) high = middle;
    else low = middle;
  }
  return upTo(high);
}

/** On gemma-3-270m-xpatch, text and pictures together: 19 s for the 93 prompts of a cell of `main`, 36 s for its 1620 lines. */
const LINES_AN_EXAMPLE = 1.5;

/** How many lines of the validation cost as much as the vectors of some conditions of a cell. */
function linesOfVectors(
  study: Pick<Study, 'experiment' | 'cells'>,
  cell: Cell,
  conditions: readonly Condition[],
): number {
  const { shots } = study.experiment;
  const weights = new Map<string, number>();
  for (const condition of conditions) {
    const vector = vectorOf(study, cell, condition);
    if (vector?.cell === cell) weights.set(vector.name, weightOf(vector));
  }
  return [...weights.values()].reduce((sum, prompts) => sum + prompts * (shots + 1) * LINES_AN_EXAMPLE, 0);
}
