import type { Model } from '../model/model.js';
import type { OnProgress } from '../model/types.js';
import type { Prompt } from '../prompt/prompt.js';
import type { PromptPart } from '../prompt/types.js';
import { promptFormat } from '../tasks/model-format.js';
import { baselineShots, type Modality, vectorPrompts } from '../tasks/prompts.js';
import { splitTask, type TaskSplit } from '../tasks/split.js';
import { listTasks, loadTask, type TaskItem } from '../tasks/task.js';
import type { PromptTemplate } from '../tasks/template.js';
import { XpatchError } from '../util/errors.js';
import { Pace } from '../util/pace.js';
import { Random } from '../util/random.js';

/** Prompts to fit a lens on, others to choose its strengths on, and others to test it on. */
export interface LensPrompts {
  fit: Prompt[];
  validation: Prompt[];
  test: Prompt[];
  /** What each test prompt asks about: intervals resample these. */
  testItems: string[];
}

/** How many prompts a tuned lens is fitted and tested on. */
export interface LensPromptOptions {
  /** Number of prompts to fit on, with those to choose on; fewer when there are no more. Defaults to 120. */
  prompts?: number;
  /** Number of prompts to test on; fewer when there are no more. Defaults to 60. */
  test?: number;
  /** Defaults to 1. */
  seed?: number;
  /** How prompts of tasks are written. Defaults to the paper's template. */
  template?: PromptTemplate;
  signal?: AbortSignal;
  /** Prompts built of all. */
  onProgress?: OnProgress;
}

/** Tokens of a window of a text. */
const WINDOW = 64;
/** Characters that are tokenised at once. */
const PIECE = 1 << 15;
/** Of the windows of a text, one in so many is for the test. */
const TEST_SHARE = 4;
/** Of the prompts and items to fit on, one in so many is for choosing the strengths. */
const VALIDATION_SHARE = 4;

/**
 * Five-shot prompts of the shipped tasks, as many of each: to fit and to choose on of different validation items of the
 * split, to test on of test items. Tasks of one domain have items in common and cut them elsewhere where one has fewer, so an item
 * that is on one side in any of them is left out of the others. With a picture encoder half of the prompts show pictures.
 *
 * @throws {XpatchError} INVALID_ARGUMENT, ABORTED
 */
export async function taskLensPrompts(model: Model, options: LensPromptOptions = {}): Promise<LensPrompts> {
  const { prompts = 120, test = 60, seed = 1, template, signal, onProgress } = options;
  const format = await promptFormat(model, template);
  const pictures = model.hasVision;
  const modalities: Modality[] = pictures ? ['text', 'image'] : ['text'];
  const kinds = (await listTasks()).flatMap((name) => modalities.map((modality) => ({ name, modality })));
  const testItems: string[] = [];
  const parts: Record<'fit' | 'validation' | 'test', (readonly PromptPart[])[]> = { fit: [], validation: [], test: [] };
  const sides = await sidesOf(seed, pictures);
  for (const [i, { name, modality }] of kinds.entries()) {
    const split = sides.get(name) as Sides;
    const { task } = split;
    // The remainder goes to the first kinds.
    const share = (total: number) => Math.floor((total + kinds.length - 1 - i) / kinds.length);
    const forChoice = Math.floor(prompts / VALIDATION_SHARE);
    const wanted = { validation: share(forChoice), fit: share(prompts - forChoice) };
    for (const half of ['fit', 'validation'] as const) {
      const count = Math.min(wanted[half], split[half].length);
      if (count === 0) continue;
      const made = vectorPrompts({ ...split, validation: split[half] }, modality, {
        count,
        readPosition: 'dummy-query',
        format,
      });
      parts[half].push(...made.map((prompt) => prompt.parts));
    }
    for (const query of split.test.slice(0, share(test))) {
      const shots = baselineShots(split, query);
      parts.test.push(format.write({ shots, shotModality: modality, query, queryModality: modality }));
      testItems.push(`${task.domain}: ${query.input}`);
    }
  }
  const total = parts.fit.length + parts.validation.length + parts.test.length;
  let done = 0;
  const build = async (all: readonly (readonly PromptPart[])[]) => {
    const built: Prompt[] = [];
    for (const one of all) {
      built.push(await model.prompt(one, { signal }));
      onProgress?.({ done: ++done, total });
    }
    return built;
  };
  return {
    fit: await build(parts.fit),
    validation: await build(parts.validation),
    test: await build(parts.test),
    testItems,
  };
}

/** A split whose validation items are in two parts. */
interface Sides extends TaskSplit {
  readonly fit: readonly TaskItem[];
}

/** Of every shipped task; within a domain no item is on two sides. */
async function sidesOf(seed: number, pictures: boolean): Promise<Map<string, Sides>> {
  const splits: Sides[] = [];
  for (const name of await listTasks()) {
    const split = splitTask(await loadTask(name, { pictures }), seed, { pictures });
    const [validation, fit] = divide(split.validation, Math.floor(split.validation.length / VALIDATION_SHARE));
    splits.push({ ...split, validation, fit });
  }
  const without = (split: Sides, side: 'fit' | 'test', others: readonly ('validation' | 'fit')[]) => {
    const same = splits.filter(({ task }) => task.domain === split.task.domain);
    const taken = new Set(same.flatMap((one) => others.flatMap((other) => one[other].map(({ input }) => input))));
    return split[side].filter(({ input }) => !taken.has(input));
  };
  const apart = splits.map((split) => ({
    ...split,
    fit: without(split, 'fit', ['validation']),
    test: without(split, 'test', ['validation', 'fit']),
  }));
  return new Map(apart.map((split) => [split.task.name, split]));
}

/**
 * A text cut into windows of 64 tokens, in random order: three in four at most to fit and to choose on, the others to test on.
 *
 * @throws {XpatchError} INVALID_ARGUMENT for a text that is too short; TOKEN_INVALID without a tokenizer
 */
export async function textLensPrompts(
  model: Model,
  text: string,
  options: Omit<LensPromptOptions, 'template' | 'onProgress'> = {},
): Promise<LensPrompts> {
  const { prompts = 120, test = 60, seed = 1, signal } = options;
  const { addsBos, bosToken } = model.info;
  const start = addsBos ? [bosToken] : [];
  const pace = new Pace(signal);
  // A window that comes twice must not be on both sides.
  const windows = new Map<string, number[]>();
  // Piece by piece, since the tokenizer holds up everything else meanwhile.
  for (let from = 0; from < text.length; from += PIECE) {
    const tokens = model.tokenize(text.slice(from, from + PIECE));
    for (let at = 0; at + WINDOW <= tokens.length; at += WINDOW) {
      const window = [...start, ...tokens.subarray(at, at + WINDOW)];
      windows.set(window.join(), window);
    }
    if (pace.due()) await pace.rest();
  }
  const nTest = Math.min(test, Math.floor(windows.size / TEST_SHARE));
  if (nTest < 2) {
    const problem = `The text has ${windows.size} different windows of ${WINDOW} tokens, but a lens needs at least`;
    throw new XpatchError('INVALID_ARGUMENT', `${problem} ${2 * TEST_SHARE}. Give a longer one.`);
  }
  const [held, rest] = divide(new Random(seed, 'lens-windows').sample([...windows.values()]), nTest);
  const [validation, fit] = divide(
    rest.slice(0, prompts),
    Math.floor(Math.min(prompts, rest.length) / VALIDATION_SHARE),
  );
  const build = (some: number[][]) => Promise.all(some.map((window) => model.prompt({ tokens: window }, { signal })));
  const testItems = held.map((_, i) => String(i));
  return { fit: await build(fit), validation: await build(validation), test: await build(held), testItems };
}

function divide<T>(items: readonly T[], first: number): readonly [T[], T[]] {
  return [items.slice(0, first), items.slice(first)];
}
