import { type Edits, editsBehind } from '../hooks/place.js';
import type { Context } from '../model/context.js';
import type { PassRow } from '../model/pass.js';
import { logSumExp, rowsWithin } from '../model/tracked.js';
import type { Prompt } from '../prompt/prompt.js';
import { Pace } from '../util/pace.js';

/** Probability of a token under the softmax over the whole vocabulary, and how many tokens have a larger logit. */
export function tokenScore(logits: Float32Array, token: number): { probability: number; rank: number } {
  const own = logits[token] as number;
  let rank = 0;
  for (let i = 0; i < logits.length; i++) if ((logits[i] as number) > own) rank++;
  return { probability: Math.exp(own - logSumExp(logits)), rank };
}

/** A prompt with what is done to it. */
export interface AskedRow extends Edits {
  readonly prompt: Prompt;
}

/** A row with the beginning of an answer behind its prompt, for the logits of what comes next. */
export function rowBehind(row: AskedRow, tokens: readonly number[]): PassRow {
  const { prompt } = row;
  return { prompt: prompt.append(tokens), ...editsBehind(row, prompt, tokens.length), logits: 'last' };
}

/** What has to be read to know the next tokens of some answers: each proper prefix of an answer, once. */
interface Beginning {
  readonly tokens: readonly number[];
  readonly next: { readonly answer: number; readonly token: number }[];
}

/**
 * Log-likelihood, in nats, of every answer as the continuation of every row: [rows][answers]. Answers branch off the row's prompt,
 * which is decoded once per pass, and so are their common beginnings.
 *
 * @param answersOf token ids of each answer after a row: the same list if the prompt is the same
 * @param maxBytes bound on the logits held at a time, which are at least one row of the vocabulary
 */
export async function logLikelihoods<Row extends AskedRow>(
  context: Context,
  rows: readonly Row[],
  answersOf: (row: Row) => readonly (readonly number[])[],
  { maxBytes, signal }: { maxBytes: number; signal?: AbortSignal | undefined },
): Promise<number[][]> {
  const pace = new Pace();
  const known = new Map<unknown, readonly Beginning[]>();
  const jobs = rows.flatMap((row, r) => {
    const answers = answersOf(row);
    const beginnings = known.get(answers) ?? beginningsOf(answers);
    known.set(answers, beginnings);
    return beginnings.map(({ tokens, next }) => ({ r, row, tokens, next }));
  });
  const scores = rows.map((row) => new Array<number>(answersOf(row).length).fill(0));
  const held = rowsWithin(maxBytes, context.model);
  for (let from = 0; from < jobs.length; from += held) {
    const some = jobs.slice(from, from + held);
    const results = await context.pass(
      some.map(({ row, tokens }) => rowBehind(row, tokens)),
      { signal },
    );
    for (const [i, { r, next }] of some.entries()) {
      const logits = results[i]?.logits?.data as Float32Array;
      const total = logSumExp(logits);
      const own = scores[r] as number[];
      for (const { answer, token } of next) own[answer] = (own[answer] as number) + (logits[token] as number) - total;
      if (pace.due()) await pace.rest();
    }
  }
  return scores;
}

function beginningsOf(answers: readonly (readonly number[])[]): Beginning[] {
  const beginnings = new Map<string, Beginning>();
  for (const [a, answer] of answers.entries()) {
    for (const [n, token] of answer.entries()) {
      const tokens = answer.slice(0, n);
      const beginning = beginnings.get(tokens.join()) ?? { tokens, next: [] };
      beginning.next.push({ answer: a, token });
      beginnings.set(tokens.join(), beginning);
    }
  }
  return [...beginnings.values()];
}
