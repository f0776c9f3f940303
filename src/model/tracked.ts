import type { Prompt } from '../prompt/prompt.js';
import type { PromptPart } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import type { Model } from './model.js';
import type { TokenScore } from './types.js';

/** A token wherever it ranks. */
export interface RankedToken extends TokenScore {
  /** How many tokens have a larger logit. */
  rank: number;
}

/** Bytes of logits that a measurement holds at a time, unless it is told otherwise. */
export const LOGITS_HELD = 64e6;

/** How many rows' logits fit into this many bytes, at least one. */
export function rowsWithin(bytes: number, { info }: Model): number {
  return Math.max(1, Math.floor(bytes / (Float32Array.BYTES_PER_ELEMENT * info.nVocab)));
}

/**
 * Ids of tokens that are given as ids, or as texts that continue a prompt: the same text makes other tokens after other
 * words. A text of several tokens has no one probability, so it is refused.
 *
 * @throws XpatchError INVALID_ARGUMENT for such a text, TOKEN_INVALID for an id outside the vocabulary
 */
export async function trackedTokens(
  model: Model,
  prompt: Pick<Prompt, 'parts'>,
  track: readonly (string | number)[],
): Promise<number[]> {
  const { nVocab } = model.info;
  const parts = prompt.parts.filter((part) => typeof part === 'string' || !('mark' in part));
  const found: number[] = [];
  for (const item of track) {
    const token = typeof item === 'string' ? await oneToken(model, parts, item) : item;
    if (!Number.isInteger(token) || token < 0 || token >= nVocab) {
      throw new XpatchError('TOKEN_INVALID', `Token id ${token} is outside the vocabulary of ${nVocab}.`);
    }
    found.push(token);
  }
  return found;
}

async function oneToken(model: Model, parts: readonly PromptPart[], text: string): Promise<number> {
  const behind = async (more: string) => {
    const [before, whole] = [await model.assemble(parts), await model.assemble(more ? [...parts, more] : parts)];
    const differs = before.tokens.findIndex((token, i) => token !== whole.tokens[i]);
    return [...whole.tokens.subarray(differs < 0 ? before.length : differs)];
  };
  const tokens = await behind(text);
  if (tokens.length === 1) return tokens[0] as number;
  const pieces = tokens.map((token) => JSON.stringify(model.detokenize([token]))).join(' ');
  const bare = text.trimStart();
  const begun = tokens.length > 0 && model.detokenize(tokens.slice(0, 1)).trim() !== '';
  const ways = begun ? ['take the first of them'] : [];
  for (const other of [bare, ` ${bare}`]) {
    const isOne = bare !== '' && other !== text && (await behind(other)).length === 1;
    if (isOne) ways.push(`${begun ? '' : 'try '}${JSON.stringify(other)}, which is one`);
  }
  if (ways.length === 0) ways.push('leave out the spaces before it');
  const wayOut = tokens.length ? `It is ${pieces}; ${ways.join(', or ')}.` : 'Give it some text.';
  throw new XpatchError('INVALID_ARGUMENT', `${JSON.stringify(text)} is not one token after this prompt. ${wayOut}`);
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

/** Kullback-Leibler divergence in nats of the softmax of `q` from that of `p`. */
export function divergence(p: Float32Array, q: Float32Array): number {
  const [a, b] = [logSumExp(p), logSumExp(q)];
  let sum = 0;
  for (let i = 0; i < p.length; i++) {
    const log = (p[i] as number) - a;
    const share = Math.exp(log);
    if (share > 0) sum += share * (log - (q[i] as number) + b);
  }
  return Math.max(0, sum); // rounding
}
