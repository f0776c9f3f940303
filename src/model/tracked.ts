import { XpatchError } from '../util/errors.js';
import type { Model } from './model.js';
import type { TokenScore } from './types.js';

/** A token wherever it ranks. */
export interface RankedToken extends TokenScore {
  /** How many tokens have a larger logit. */
  rank: number;
}

/**
 * Ids of tokens that are given as ids or as texts. A text of several tokens has no one probability, so it is refused.
 *
 * @throws XpatchError INVALID_ARGUMENT
 */
export function trackedTokens(model: Model, track: readonly (string | number)[]): number[] {
  return track.map((item) => (typeof item === 'string' ? oneToken(model, item) : item));
}

function oneToken(model: Model, text: string): number {
  const tokens = model.tokenize(text);
  if (tokens.length === 1) return tokens[0] as number;
  const pieces = Array.from(tokens, (token) => JSON.stringify(model.detokenize([token]))).join(' ');
  const spaced = model.tokenize(` ${text}`).length === 1 ? `, or ${JSON.stringify(` ${text}`)}, which is one` : '';
  const wayOut = tokens.length ? `It is ${pieces}; take the first of them${spaced}.` : 'Give it some text.';
  throw new XpatchError('INVALID_ARGUMENT', `${JSON.stringify(text)} is not one token of this model. ${wayOut}`);
}

/** What the logits over a whole vocabulary say about some tokens. */
export function rankTokens(
  logits: Float32Array,
  tokens: readonly number[],
  textOf: (token: number) => string,
): RankedToken[] {
  const total = logSumExp(logits);
  return tokens.map((token) => {
    const logit = logits[token];
    if (logit === undefined) {
      throw new XpatchError('TOKEN_INVALID', `Token id ${token} is outside the vocabulary of ${logits.length}.`);
    }
    let rank = 0;
    for (const other of logits) if (other > logit) rank++;
    return { token, text: textOf(token), logit, probability: Math.exp(logit - total), rank };
  });
}

/** Log of the sum of the exponentials of logits, in nats. */
export function logSumExp(logits: Float32Array): number {
  let max = Number.NEGATIVE_INFINITY;
  for (const logit of logits) max = Math.max(max, logit);
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - max);
  return max + Math.log(sum);
}
