import { type AnswerOptions, answersCollide, normaliseAnswer } from '../tasks/answers.js';
import type { TaskItem } from '../tasks/task.js';

/** How answers are compared with the right one. */
export type ScoringOptions = AnswerOptions;

/**
 * The paper's rule, for one generated token: after stripping, both strings are non-empty and one is a prefix of the other.
 * Lenient: a token of one letter can pass.
 * @param expected the right answer, or several of which one is enough
 */
export function lenientMatch(
  answer: string,
  expected: string | readonly string[],
  options: ScoringOptions = {},
): boolean {
  return [expected].flat().some((one) => answersCollide(answer, one, options));
}

/**
 * The whole answer, up to where it stopped, equals the expected string, both stripped. Whether it stopped or was cut off
 * is for the caller to know.
 * @param expected the right answer, or several of which one is enough
 */
export function strictMatch(
  whole: string,
  expected: string | readonly string[],
  options: ScoringOptions = {},
): boolean {
  const answer = normaliseAnswer(whole, options);
  return answer !== '' && [expected].flat().some((one) => answer === normaliseAnswer(one, options));
}

/**
 * The Random row: the most common answer of the examples, given to every query. Ties go to the first one.
 * @param examples examples that exclude every query: the validation items of the same seed
 * @returns undefined if there are no examples
 */
export function majorityAnswer(examples: readonly Pick<TaskItem, 'output'>[]): string | undefined {
  const counts = new Map<string, number>();
  for (const { output } of examples) counts.set(output, (counts.get(output) ?? 0) + 1);
  let best: string | undefined;
  for (const [answer, count] of counts) {
    if (best === undefined || count > (counts.get(best) as number)) best = answer;
  }
  return best;
}
