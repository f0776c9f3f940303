import type { Model } from '../model/model.js';
import { XpatchError } from '../util/errors.js';
import type { Task } from './task.js';

/** What of a model token classes are made with. */
export type Tokenizer = Pick<Model, 'tokenize' | 'detokenize'>;

/** The delimiter that answers come after, as prompts have it. */
const BEFORE_ANSWER = '\nA:';

/**
 * The tokens that a text may begin with when a model says it after `A:`: the first token of the text as it stands there, and
 * that of the text after a space. A token of blanks alone says nothing about the text and is left out.
 *
 * @throws {XpatchError} TOKEN_INVALID when there is none
 */
export function firstTokens(model: Tokenizer, text: string): number[] {
  const found = new Set<number>();
  for (const variant of [text, ` ${text}`]) {
    const [first] = tokensAfterDelimiter(model, variant);
    if (first !== undefined && model.detokenize([first]).trim() !== '') found.add(first);
  }
  if (found.size === 0) {
    const problem = `${JSON.stringify(text)} begins with no token of its own after "A:" in this model's vocabulary`;
    throw new XpatchError('TOKEN_INVALID', `${problem}. Choose another word.`);
  }
  return [...found];
}

/**
 * The tokens that are a word as a whole: as it stands, with a capital letter, and both after a space. Empty when the
 * vocabulary spells the word in pieces; then a lens can never show it.
 */
export function wordTokens(model: Tokenizer, word: string): number[] {
  const capital = word.charAt(0).toUpperCase() + word.slice(1);
  const found = new Set<number>();
  for (const variant of [word, capital, ` ${word}`, ` ${capital}`]) {
    const tokens = tokensAfterDelimiter(model, variant);
    if (tokens.length === 1) found.add(tokens[0] as number);
  }
  return [...found];
}

/** Tokens of a text that follows the delimiter; none when the tokenizer merges the two. */
export function tokensAfterDelimiter(model: Tokenizer, text: string): number[] {
  const before = model.tokenize(BEFORE_ANSWER);
  const whole = model.tokenize(BEFORE_ANSWER + text);
  return before.every((token, i) => whole[i] === token) ? [...whole.subarray(before.length)] : [];
}

/** The tokens that name a task and its answers in one model. */
export interface TaskTokens {
  /** Of the task word; empty when the task has none or the vocabulary spells it in pieces. */
  readonly word: readonly number[];
  /** First tokens of each answer (`firstTokens`). */
  readonly answers: ReadonlyMap<string, readonly number[]>;
  /** First tokens of all answers together. */
  readonly anyAnswer: ReadonlySet<number>;
  /** Answers that begin with a token that another answer begins with too, e.g. `Panthera leo` and `Panthera tigris`. */
  readonly ambiguous: ReadonlySet<string>;
}

/** @throws {XpatchError} TOKEN_INVALID */
export function taskTokens(model: Tokenizer, task: Pick<Task, 'taskWord' | 'items'>): TaskTokens {
  const answers = new Map<string, readonly number[]>();
  const owners = new Map<number, Set<string>>();
  for (const { output } of task.items) {
    const answer = output.trim();
    if (answers.has(answer)) continue;
    const tokens = firstTokens(model, answer);
    answers.set(answer, tokens);
    for (const token of tokens) owners.set(token, (owners.get(token) ?? new Set()).add(answer));
  }
  const shared = [...owners.values()].filter((names) => names.size > 1);
  return {
    word: task.taskWord === undefined ? [] : wordTokens(model, task.taskWord),
    answers,
    anyAnswer: new Set(owners.keys()),
    ambiguous: new Set(shared.flatMap((names) => [...names])),
  };
}

/** What the best token of a state can be. In this order a token that is several of them counts as the first one. */
export const TOP_CLASSES = ['right answer', 'task word', 'another answer', 'input token', 'another token'] as const;
export type TopClass = (typeof TOP_CLASSES)[number];

/** Which class a token is in for a prompt whose right answer is `expected`. */
export function classOf(token: number, expected: string, tokens: TaskTokens, inputToken: number): TopClass {
  if (tokens.answers.get(expected.trim())?.includes(token)) return 'right answer';
  if (tokens.word.includes(token)) return 'task word';
  if (tokens.anyAnswer.has(token)) return 'another answer';
  return token === inputToken ? 'input token' : 'another token';
}
