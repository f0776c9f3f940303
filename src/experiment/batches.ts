import { createHash } from 'node:crypto';
import type { TaskItem } from '../tasks/task.js';
import { type Cell, conditionsOf, type Study } from './study.js';
import type { Condition, QueryKey } from './types.js';

/**
 * How many lines are asked for together. A few rows cost nearly as much as many: `main` on one text task of SmolLM2-135M in F16 took a
 * core 16.6 s with batches of 32 lines, 14.6 s of 64 and 13.5 s of 128. With larger batches a kill would lose more.
 */
export const LINES = 128;

/** How many lines an item has under a condition: a patch has one per layer, or one in the test if validation chooses the layer. */
export function linesOf(
  { kind, layers: own }: Condition,
  { layers }: Study['experiment'],
  stage: QueryKey['stage'],
  nLayers: number,
): number {
  if (kind !== 'patch') return 1;
  if (stage === 'validation') return nLayers;
  return own?.length ?? (layers === 'validation' ? 1 : layers === 'all' ? nLayers : layers.length);
}

/** How many lines an item has in a stage. */
export function linesOfItem(study: Pick<Study, 'experiment'>, stage: QueryKey['stage'], nLayers: number): number {
  return conditionsOf(study, stage).reduce((n, one) => n + linesOf(one, study.experiment, stage, nLayers), 0);
}

/**
 * The items of a cell in batches, each of which is computed in common passes. Batches depend only on the experiment and the number
 * of layers of the model: a row's company changes the last digits of its answer, so it must be the same in every shard, on any
 * number of cores and after every kill. (In a small cache a batch is computed in parts, so runs to be compared need caches of one
 * size.) Test items are in the order of their hashes, by which shards are dealt out.
 */
export function batchesOf(
  study: Pick<Study, 'experiment'>,
  cell: Pick<Cell, 'split'>,
  stage: QueryKey['stage'],
  nLayers: number,
): TaskItem[][] {
  const items = stage === 'test' ? byHash(cell.split.test) : [...cell.split.validation];
  const lines = linesOfItem(study, stage, nLayers);
  return evenly(items, Math.max(1, Math.floor(LINES / Math.max(1, lines))));
}

/** A list in as few parts of at most so many as it takes, as equal as they can be. */
export function evenly<T>(list: readonly T[], most: number): T[][] {
  const n = Math.ceil(list.length / most);
  const start = (i: number) => Math.floor((i * list.length) / n);
  return Array.from({ length: n }, (_, i) => list.slice(start(i), start(i + 1)));
}

/** Hash of an item's name. */
export function hashOfItem({ input }: Pick<TaskItem, 'input'>): string {
  return createHash('sha256').update(input).digest('hex');
}

function byHash(items: readonly TaskItem[]): TaskItem[] {
  const hashes = new Map(items.map((item) => [item, hashOfItem(item)]));
  return [...items].sort((a, b) => ((hashes.get(a) as string) < (hashes.get(b) as string) ? -1 : 1));
}
