import { XpatchError } from '../util/errors.js';
import { type AnswerTokens, answerTokens, endOf, type Tokenizer } from './answer-tokens.js';
import { rightAnswers } from './answers.js';
import { PAPER_FORMAT, type PromptFormat } from './prompt-format.js';
import type { Task, TaskItem } from './task.js';

export type { Tokenizer } from './answer-tokens.js';

/**
 * The tokens that a text may begin with when a model says it after a query: the first token of the text as it is written there, and
 * that of the text after a space. A token of spaces alone says nothing about the text and is left out.
 *
 * @param format how queries are written (`promptFormat`). Defaults to the paper's template, whose queries end in `A:`
 * @throws {XpatchError} TOKEN_INVALID when there is none
 */
export async function firstTokens(model: Tokenizer, text: string, format = PAPER_FORMAT): Promise<number[]> {
  const found = new Set<number>();
  for (const { tokens, first, merged } of await behindQuery(model, [text, ` ${text}`], format)) {
    const token = tokens[first];
    if (!merged && token !== undefined && model.detokenize([token]).trim() !== '') found.add(token);
  }
  if (found.size === 0) {
    const end = endOf(format.write(QUERY));
    const problem = `${JSON.stringify(text)} does not begin with its own token after ${end} in this model's vocabulary`;
    throw new XpatchError('TOKEN_INVALID', `${problem}. Choose another word.`);
  }
  return [...found];
}

/**
 * The tokens that are a word as a whole: as it is written, with a capital letter, and both after a space. Empty when the
 * vocabulary spells the word in pieces; then a lens can never show it.
 *
 * @param format as in `firstTokens`
 */
export async function wordTokens(model: Tokenizer, word: string, format = PAPER_FORMAT): Promise<number[]> {
  const capital = word.charAt(0).toUpperCase() + word.slice(1);
  const found = await behindQuery(model, [word, capital, ` ${word}`, ` ${capital}`], format);
  return [...new Set(found.flatMap(({ tokens, merged }) => (merged || tokens.length > 1 ? [] : tokens)))];
}

const QUERY = { query: { input: 'x', output: '' } };

/** Tokens of texts right after a query: nothing is between them in the paper's template. */
function behindQuery(model: Tokenizer, texts: readonly string[], format: PromptFormat): Promise<AnswerTokens[]> {
  return answerTokens(model, format.write(QUERY), PAPER_FORMAT, texts);
}

/** The tokens that name a task and its answers in one model. */
export interface TaskTokens {
  /** Tokens of the task word; empty when the task has none or the vocabulary spells it in pieces. */
  readonly word: readonly number[];
  /** First tokens of each answer that is right for some item (`firstTokens`). */
  readonly answers: ReadonlyMap<string, readonly number[]>;
  /** The first tokens of all answers, each with the answers that begin with it. */
  readonly begun: ReadonlyMap<number, ReadonlySet<string>>;
}

/** The right answers of an item. */
type Answers = Pick<TaskItem, 'output' | 'also'>;

/** @param format as in `firstTokens` @throws {XpatchError} TOKEN_INVALID */
export async function taskTokens(
  model: Tokenizer,
  task: Pick<Task, 'taskWord' | 'items'>,
  format = PAPER_FORMAT,
): Promise<TaskTokens> {
  const answers = new Map<string, readonly number[]>();
  const begun = new Map<number, Set<string>>();
  for (const answer of task.items.flatMap(trimmedAnswers)) {
    if (answers.has(answer)) continue;
    const tokens = await firstTokens(model, answer, format);
    answers.set(answer, tokens);
    for (const token of tokens) begun.set(token, (begun.get(token) ?? new Set()).add(answer));
  }
  return {
    word: task.taskWord === undefined ? [] : await wordTokens(model, task.taskWord, format),
    answers,
    begun,
  };
}

function trimmedAnswers(item: Answers): string[] {
  return rightAnswers(item).map((answer) => answer.trim());
}

/** First tokens of all right answers of an item. */
export function rightTokens(item: Answers, { answers }: TaskTokens): number[] {
  return [...new Set(trimmedAnswers(item).flatMap((answer) => answers.get(answer) ?? []))];
}

/** Whether a right answer of an item begins as one that is not right for it, e.g. `Panthera leo` as `Panthera tigris`. */
export function isAmbiguous(item: Answers, tokens: TaskTokens): boolean {
  const right = trimmedAnswers(item);
  const owners = rightTokens(item, tokens).flatMap((token) => [...(tokens.begun.get(token) ?? [])]);
  return owners.some((answer) => !right.includes(answer));
}

/** What the best token of a state can be. In this order a token that is several of them counts as the first one. */
export const TOP_CLASSES = ['right answer', 'task word', 'another answer', 'input token', 'another token'] as const;
/** What the best token of a state can be for a query of a task. */
export type TopClass = (typeof TOP_CLASSES)[number];

/** Which class a token is in for a prompt that asks for this item. */
export function classOf(token: number, item: Answers, tokens: TaskTokens, inputToken: number): TopClass {
  if (rightTokens(item, tokens).includes(token)) return 'right answer';
  if (tokens.word.includes(token)) return 'task word';
  if (tokens.begun.has(token)) return 'another answer';
  return token === inputToken ? 'input token' : 'another token';
}
