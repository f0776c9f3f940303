import { setImmediate } from 'node:timers/promises';
import type { Context } from '../model/context.js';
import type { Model } from '../model/model.js';
import type { Intervention } from '../model/types.js';
import type { Prompt } from '../prompt/prompt.js';
import { isText, textOf } from '../prompt/text-parts.js';
import type { PromptPart } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';

/**
 * Tokens of an answer where it follows a prompt, as a template writes it: right after the last text. `:` and the answer may
 * make other tokens than each alone, so both are tokenised together.
 *
 * @throws {XpatchError} MARK_AMBIGUOUS when the tokenizer merges the end of the prompt with the answer
 */
export function answerTokens(model: Model, parts: readonly PromptPart[], answer: string): number[] {
  const shown = parts.filter((part) => isText(part) || !('mark' in part));
  const tail = shown.slice(shown.findLastIndex((part) => !isText(part)) + 1).filter(isText);
  const before = model.tokenize(tail);
  const whole = model.tokenize([...tail, { literal: answer }]);
  if (before.some((token, i) => token !== whole[i]) || whole.length === before.length) {
    const end = tail.map(textOf).join('').split('\n').at(-1);
    const message = `The tokenizer merges the end of the prompt, ${JSON.stringify(end)}, with the answer ${JSON.stringify(answer)}`;
    throw new XpatchError('MARK_AMBIGUOUS', `${message}: leave scores out, or use a template that ends otherwise.`);
  }
  return [...whole.slice(before.length)];
}

/** Log of the sum of the exponentials of logits, in nats. */
export function logSumExp(logits: Float32Array): number {
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) max = Math.max(max, logits[i] as number);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp((logits[i] as number) - max);
  return max + Math.log(sum);
}

/** Probability of a token under the softmax over the whole vocabulary, and how many tokens have a larger logit. */
export function tokenScore(logits: Float32Array, token: number): { probability: number; rank: number } {
  const own = logits[token] as number;
  let rank = 0;
  for (let i = 0; i < logits.length; i++) if ((logits[i] as number) > own) rank++;
  return { probability: Math.exp(own - logSumExp(logits)), rank };
}

/** How many rows' logits fit into so many bytes, at least one. */
export function rowsWithin(bytes: number, { info }: Model): number {
  return Math.max(1, Math.floor(bytes / (Float32Array.BYTES_PER_ELEMENT * info.nVocab)));
}

/** A prompt with what is done to its states. */
export interface AskedRow {
  readonly prompt: Prompt;
  readonly interventions: readonly Intervention[];
}

/**
 * Log-likelihood, in nats, of every answer as the continuation of every row: [rows][answers]. What an answer is summed over
 * are its own tokens, not what ends it. Answers branch off the row's prompt, which is decoded once a pass, and what
 * they have in common from their start is decoded once too.
 *
 * @param answers token ids of each
 * @param maxBytes bound of the logits held at a time; at least one row of the vocabulary is
 */
export async function logLikelihoods(
  context: Context,
  rows: readonly AskedRow[],
  answers: readonly (readonly number[])[],
  { maxBytes }: { maxBytes: number },
): Promise<number[][]> {
  // What has to be read to know the next tokens: every proper beginning of an answer, once.
  const beginnings = new Map<string, { tokens: readonly number[]; next: { answer: number; token: number }[] }>();
  for (const [a, answer] of answers.entries()) {
    for (const [n, token] of answer.entries()) {
      const tokens = answer.slice(0, n);
      const beginning = beginnings.get(tokens.join()) ?? { tokens, next: [] };
      beginning.next.push({ answer: a, token });
      beginnings.set(tokens.join(), beginning);
    }
  }
  const jobs = rows.flatMap((row, r) => [...beginnings.values()].map(({ tokens, next }) => ({ r, row, tokens, next })));
  const scores = rows.map(() => new Array<number>(answers.length).fill(0));
  const held = rowsWithin(maxBytes, context.model);
  for (let from = 0; from < jobs.length; from += held) {
    const some = jobs.slice(from, from + held);
    const results = await context.pass(
      some.map(({ row, tokens }) => ({
        prompt: row.prompt.append(tokens),
        interventions: row.interventions,
        logits: 'last' as const,
      })),
    );
    for (const [i, { r, next }] of some.entries()) {
      const logits = results[i]?.logits?.data as Float32Array;
      const total = logSumExp(logits);
      const own = scores[r] as number[];
      for (const { answer, token } of next) own[answer] = (own[answer] as number) + (logits[token] as number) - total;
      await setImmediate(); // a large vocabulary takes a millisecond each
    }
  }
  return scores;
}
