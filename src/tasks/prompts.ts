import type { PromptPart } from '../prompt/types.js';
import { counted } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import { Random } from '../util/random.js';
import { PAPER_FORMAT, type PromptFormat } from './prompt-format.js';
import type { TaskSplit } from './split.js';
import type { Task, TaskItem } from './task.js';
import type { Modality } from './template.js';

/** How the task was specified to the model. */
export type TaskSpec = 'text' | 'image' | 'instruction';

export { DELIMITER, type Modality } from './template.js';

/**
 * Where the vector is read in a prompt of examples:
 * - `last-example`: the `:` of the last example's `A:`, before its answer (the paper's way). Five shots are four whole
 *   pairs and the fifth input.
 * - `dummy-query`: the `:` after a further input that follows all pairs whole.
 */
export type ReadPosition = 'last-example' | 'dummy-query';

/** What is in a prompt of examples that a vector is read from. */
export interface VectorExamples {
  /** The examples, in order, as the paper counts them. */
  readonly shots: readonly TaskItem[];
  /** Those shown whole. */
  readonly whole: readonly TaskItem[];
  /** The last input, shown without its answer. */
  readonly last: TaskItem;
  /** The validation item whose turn it was; it is in the prompt only with read position `dummy-query`. */
  readonly query: TaskItem;
}

/** A prompt that a vector is read from. */
export interface VectorPrompt {
  readonly parts: readonly PromptPart[];
  /** The examples, in order; none for an instruction. */
  readonly shots: readonly TaskItem[];
  /** The validation item whose turn it was; it is in the prompt only with read position `dummy-query`. */
  readonly query?: TaskItem;
}

/**
 * `Q:{x}\nA:`, nothing before it.
 * @throws {XpatchError} TASK_INVALID when a picture is asked for and the item has none
 *
 * @example
 * ```ts
 * const { items } = await loadTask('country-capital');
 * const [answer] = await context.generate([{ prompt: queryPrompt(items[0], 'text') }], { maxTokens: 8 });
 * ```
 */
export function queryPrompt(query: TaskItem, modality: Modality): PromptPart[] {
  return PAPER_FORMAT.write({ query, queryModality: modality });
}

/**
 * The Prompt baseline: whole examples and then the query, in one context window.
 * @throws {XpatchError} TASK_INVALID when a picture is asked for and an item has none
 *
 * @example
 * ```ts
 * const [query, ...others] = (await loadTask('country-capital')).items;
 * const [answer] = await context.generate([{ prompt: fewShotPrompt(others.slice(0, 5), 'text', query, 'text') }]);
 * ```
 */
export function fewShotPrompt(
  shots: readonly TaskItem[],
  shotModality: Modality,
  query: TaskItem,
  queryModality: Modality,
): PromptPart[] {
  return PAPER_FORMAT.write({ shots, shotModality, query, queryModality });
}

/**
 * The instruction alone, as raw text; the mark is its final colon.
 * @throws {XpatchError} TASK_INVALID when the task has no instruction or it does not end in a colon
 *
 * @example
 * ```ts
 * const prompt = instructionPrompt(await loadTask('country-capital'));
 * const { states } = await context.run({ prompt, capture: { positions: 'last' } });
 * ```
 */
export function instructionPrompt(task: Pick<Task, 'name' | 'instruction'>): PromptPart[] {
  return PAPER_FORMAT.write({ instruction: requireInstruction(task) });
}

/** @throws {XpatchError} TASK_INVALID when the task has no instruction or it does not end in a colon */
export function requireInstruction({ name, instruction }: Pick<Task, 'name' | 'instruction'>): string {
  if (instruction === undefined || !/[^\s:].*:$/s.test(instruction)) {
    const found =
      instruction === undefined ? 'has no instruction' : `has the instruction ${JSON.stringify(instruction)}`;
    const wayOut = 'Give one that ends in a colon, such as "The capital city of the country:".';
    throw new XpatchError('TASK_INVALID', `Task ${name} ${found}. ${wayOut}`);
  }
  return instruction;
}

/**
 * The prompts whose mean state is a task vector: each of the first `count` validation items in turn is the query, with
 * other validation items, drawn by the split's seed, as shots. Text and image prompts of one seed have the same items. An
 * instruction has no examples and gives a single prompt.
 *
 * @param options.shots number of examples. Defaults to 5
 * @param options.count number of prompts. Defaults to all validation items, 30 in the paper
 * @param options.readPosition Defaults to `last-example`
 * @param options.format how they are written (`promptFormat`). Defaults to the paper's template
 * @throws {XpatchError} INVALID_ARGUMENT for numbers out of range; TASK_INVALID for too few items or a missing picture
 */
export function vectorPrompts(
  split: TaskSplit,
  spec: TaskSpec,
  options: { shots?: number; count?: number; readPosition?: ReadPosition; format?: PromptFormat } = {},
): VectorPrompt[] {
  const { format = PAPER_FORMAT } = options;
  if (spec === 'instruction') {
    return [{ parts: format.write({ instruction: requireInstruction(split.task) }), shots: [] }];
  }
  return vectorExamples(split, options).map(({ shots, whole, last, query }) => ({
    parts: format.write({ shots: whole, shotModality: spec, query: last, queryModality: spec }),
    shots,
    query,
  }));
}

/** What `vectorPrompts` puts into the prompts of examples, for other templates. */
export function vectorExamples(
  split: TaskSplit,
  options: { shots?: number; count?: number; readPosition?: ReadPosition } = {},
): VectorExamples[] {
  const { shots: shotCount = 5, count = split.validation.length, readPosition = 'last-example' } = options;
  if (!Number.isInteger(count) || count < 1 || count > split.validation.length) {
    const message = `${counted(count, 'prompt')} cannot be made from ${counted(split.validation.length, 'validation item')}.`;
    throw new XpatchError('INVALID_ARGUMENT', `${message} Ask for 1 to ${split.validation.length}.`);
  }
  return split.validation.slice(0, count).map((query) => {
    const shots = drawShots(split.validation, query, shotCount, split.seed, 'vector-prompt', split.task.name);
    if (readPosition === 'dummy-query') return { shots, whole: shots, last: query, query };
    return { shots, whole: shots.slice(0, -1), last: shots.at(-1) as TaskItem, query };
  });
}

/**
 * The shots of the Prompt baseline for one test query: other test items, drawn by the split's seed. The same items whatever
 * the modality.
 * @param shots Defaults to 5
 * @throws {XpatchError} TASK_INVALID when the split has too few test items
 */
export function baselineShots(split: TaskSplit, query: TaskItem, shots = 5): TaskItem[] {
  return drawShots(split.test, query, shots, split.seed, 'prompt-baseline', split.task.name);
}

function drawShots(
  pool: readonly TaskItem[],
  query: TaskItem,
  count: number,
  seed: number,
  purpose: string,
  taskName: string,
): TaskItem[] {
  const others = pool.filter((item) => item.input !== query.input);
  if (!Number.isInteger(count) || count < 1) {
    throw new XpatchError('INVALID_ARGUMENT', `A prompt of examples has at least 1 shot, not ${String(count)}.`);
  }
  if (count > others.length) {
    const message = `Task ${taskName} has ${counted(others.length, 'item')} to draw ${counted(count, 'shot')} from.`;
    throw new XpatchError('TASK_INVALID', `${message} Ask for fewer shots, or add items.`);
  }
  return new Random(seed, purpose, query.input).sample(others, count);
}
