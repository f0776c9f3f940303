import { PAPER_FORMAT, type PromptFormat } from '../tasks/prompt-format.js';
import type { Task, TaskItem } from '../tasks/task.js';
import { rightTokens, type TaskTokens, type Tokenizer, wordTokens } from '../tasks/token-classes.js';
import { XpatchError } from '../util/errors.js';

/**
 * Classes of tokens that the curves compare:
 * - `input`: the token that is most often the best one at the lowest layer, over the prompts of a task and modality (ties: seen first)
 * - `task`: the task word (`wordTokens`)
 * - `answer`: the first tokens of the right answers, those of the last example (`firstTokens`)
 * - `other`: the first tokens of all other answers of the task, without those of the right answers and the task word
 */
export const EVOLUTION_CLASSES = ['input', 'task', 'answer', 'other'] as const;
/** What the best token of a state can be: part of the input, of the task, of the answer, or of none. */
export type EvolutionClass = (typeof EVOLUTION_CLASSES)[number];

/** A class of your own: words that are one token each. */
export interface WordClass {
  readonly name: string;
  readonly words: readonly string[];
}

type Answers = Pick<TaskItem, 'output' | 'also'>;

/** The tokens of the classes in a cell. */
export interface Classes {
  names: string[];
  missing: Record<string, string>;
  /** Tokens of a class in a prompt that asks for this item; undefined for a class that is missing. */
  tokensFor(name: string, item: Answers): readonly number[] | undefined;
  /** Pairs of classes that share a token in a prompt that asks for this item. */
  collisions(item: Answers): [string, string][];
}

/**
 * The names of classes and the tokens of those of your own.
 *
 * @throws {XpatchError} INVALID_ARGUMENT for fewer than two classes, equal names and odd ones, TOKEN_INVALID for words of several tokens
 */
export async function checkClasses(
  model: Tokenizer,
  classes: readonly (EvolutionClass | WordClass)[],
  format = PAPER_FORMAT,
) {
  const names = classes.map((entry) => (typeof entry === 'string' ? entry : entry.name));
  if (names.length < 2 || new Set(names).size < names.length) {
    const message = `Curves compare at least two classes with different names, not ${names.join(', ') || 'none'}.`;
    throw new XpatchError('INVALID_ARGUMENT', message);
  }
  const odd = names.find((name) => !/^[\p{L}\p{N}][\p{L}\p{N} _-]*$/u.test(name));
  if (odd !== undefined) {
    const message = `${JSON.stringify(odd)} cannot name a class: use letters, digits, spaces, - and _.`;
    throw new XpatchError('INVALID_ARGUMENT', message);
  }
  const own = new Map<string, readonly number[]>();
  for (const entry of classes)
    if (typeof entry !== 'string') own.set(entry.name, await ownTokens(model, entry, format));
  return { names, own };
}

/** @throws {XpatchError} as `checkClasses` */
export async function resolveClasses(
  model: Tokenizer,
  task: Pick<Task, 'taskWord' | 'items'>,
  tokens: TaskTokens,
  input: number,
  classes: readonly (EvolutionClass | WordClass)[] = EVOLUTION_CLASSES,
  format = PAPER_FORMAT,
): Promise<Classes> {
  const { names, own: words } = await checkClasses(model, classes, format);
  const fixed = new Map<string, readonly number[]>([['input', [input]], ['task', tokens.word], ...words]);
  const missing: Record<string, string> = {};
  if (names.includes('task') && tokens.word.length === 0) {
    const { taskWord } = task;
    missing.task =
      taskWord === undefined
        ? 'the task has no task word'
        : `the vocabulary has no token for ${JSON.stringify(taskWord)}`;
  }
  // The input token stays among the other answers when it is one: it is what the state says, whatever it is called.
  const own = new Set([...fixed].filter(([name]) => name !== 'input').flatMap(([, ids]) => ids));
  const others = (item: Answers) => {
    const right = rightTokens(item, tokens);
    return [...tokens.begun.keys()].filter((token) => !right.includes(token) && !own.has(token));
  };
  if (names.includes('other') && task.items.some((item) => others(item).length === 0)) {
    missing.other = 'the right answers of some item share their first tokens with all others of the task';
  }
  const tokensFor = (name: string, item: Answers) => {
    if (Object.hasOwn(missing, name) || !names.includes(name)) return undefined;
    if (name === 'answer') return rightTokens(item, tokens);
    return name === 'other' ? others(item) : fixed.get(name);
  };
  const collisions = (item: Answers) => {
    const sets = names.filter((name) => name !== 'other').map((name) => [name, tokensFor(name, item)] as const);
    return sets.flatMap(([a, left], i) =>
      sets
        .slice(i + 1)
        .filter(([, right]) => left?.some((token) => right?.includes(token)))
        .map(([b]): [string, string] => [a, b]),
    );
  };
  return { names, missing, tokensFor, collisions };
}

async function ownTokens(model: Tokenizer, { name, words }: WordClass, format: PromptFormat): Promise<number[]> {
  const tokens: number[] = [];
  for (const word of words) {
    const found = await wordTokens(model, word, format);
    if (found.length === 0) {
      const problem = `The class ${JSON.stringify(name)} has ${JSON.stringify(word)}, which this model spells in several tokens`;
      throw new XpatchError('TOKEN_INVALID', `${problem}. Choose a word that is one token.`);
    }
    tokens.push(...found);
  }
  return tokens;
}
