import { XpatchError } from '../util/errors.js';
import { Random } from '../util/random.js';
import type { Task, TaskItem } from './task.js';

/** Validation and test items of one task and seed: different inputs, in random order. */
export interface TaskSplit {
  readonly task: Task;
  readonly seed: number;
  readonly validation: readonly TaskItem[];
  readonly test: readonly TaskItem[];
}

/** How many items each part of a split has. */
export interface SplitOptions {
  /** Use only the items that have a picture, in both parts. Defaults to false. */
  readonly pictures?: boolean;
  /** Number of validation items, all of them needed. Defaults to 30 */
  readonly validation?: number;
  /** Largest number of test items; fewer when the task has no more. Defaults to 100 */
  readonly test?: number;
}

/**
 * Draws validation and test items by seed.
 *
 * Each input gets a random number of its own (from the seed and its text), and rising numbers give the order: the first
 * ones are validation items, the next ones test items. So where an input stands depends neither on the order of the file nor on
 * the items around, which only decide how far each part reaches; tasks about the same inputs (capital and currency) split them alike;
 * and a split of the items with pictures keeps the order that the split of all items has. Of items with equal input only the first in
 * the file counts (with pictures, the first that has one), so that no input is on both sides. Seeds draw independently: the test items of two seeds overlap, which the intervals take into account
 * (see `bootstrapInterval`).
 *
 * @throws {XpatchError} TASK_INVALID when there are too few items for the validation part
 *
 * @example
 * ```ts
 * const split = splitTask(await loadTask('country-capital'), 1, { validation: 30, test: 100 });
 * console.log(split.validation.length, split.test.length);
 * ```
 */
export function splitTask(task: Task, seed: number, options: SplitOptions = {}): TaskSplit {
  const { pictures = false, validation = 30, test = 100 } = options;
  const distinct = new Map<string, TaskItem>();
  for (const item of task.items) {
    if ((item.image !== undefined || !pictures) && !distinct.has(item.input)) distinct.set(item.input, item);
  }
  if (distinct.size < validation) {
    const kind = pictures ? 'different inputs with a picture' : 'different inputs';
    const message = `Task ${task.name} has ${distinct.size} ${kind}, but ${validation} validation items were asked for.`;
    throw new XpatchError('TASK_INVALID', `${message} Ask for fewer, or add items to ${task.file}.`);
  }
  const order = [...distinct.values()]
    .map((item) => ({ item, key: new Random(seed, 'split', item.input).uniform() }))
    .sort((a, b) => a.key - b.key || (a.item.input < b.item.input ? -1 : 1))
    .map(({ item }) => item);
  return { task, seed, validation: order.slice(0, validation), test: order.slice(validation, validation + test) };
}
