import type { Intervention } from '../hooks/types.js';
import type { Context } from '../model/context.js';
import { asRow, type PassRow, type RowInput } from '../model/pass.js';
import { divergence, LOGITS_HELD, logSumExp, rowsWithin, trackedTokens } from '../model/tracked.js';
import type { OnProgress, TokenScore } from '../model/types.js';
import type { Prompt } from '../prompt/prompt.js';
import { XpatchError } from '../util/errors.js';

/** One number that says how the model answers. */
export interface Metric {
  /** Token ids, or texts that are one token after the prompt, that the number is made of. */
  readonly track: readonly (string | number)[];
  /**
   * The number for an answer.
   *
   * @param logits of the last position, [n_vocab]
   * @param tokens ids of `track`
   */
  value(logits: Float32Array, tokens: readonly number[]): number;
}

/**
 * By how much the logit of one token is above that of another; each an id, or a text that is one token after the prompt.
 *
 * @throws XpatchError INVALID_ARGUMENT if they are the same
 *
 * @example
 * ```ts
 * const metric = logitDifference('Tokyo', 'Cairo');
 * const map = await patchLayers(context, { from: 'Q:Japan\nA:', into: 'Q:Egypt\nA:', metric });
 * ```
 */
export function logitDifference(right: string | number, wrong: string | number): Metric {
  requireTwo(right, wrong);
  return {
    track: [right, wrong],
    value: (logits, [a, b]) => (logits[a as number] as number) - (logits[b as number] as number),
  };
}

/** A difference from itself is 0 whatever the model does. @throws XpatchError INVALID_ARGUMENT */
export function requireTwo(right: string | number, wrong: string | number): void {
  if (right !== wrong) return;
  const problem = `The right and the wrong token are the same, ${JSON.stringify(right)}`;
  throw new XpatchError('INVALID_ARGUMENT', `${problem}. Name two: their difference is measured.`);
}

/**
 * Probability of a token, an id or a text that is one token after the prompt, under the softmax over the whole vocabulary.
 *
 * @example
 * ```ts
 * const metric = tokenProbability('Tokyo');
 * const map = await patchLayers(context, { from: 'Q:Japan\nA:', into: 'Q:Egypt\nA:', metric });
 * ```
 */
export function tokenProbability(token: string | number): Metric {
  return {
    track: [token],
    value: (logits, [id]) => Math.exp((logits[id as number] as number) - logSumExp(logits)),
  };
}

/**
 * Kullback-Leibler divergence in nats of the next-token distribution from that of other logits, [n_vocab], such as those of the clean
 * prompt: 0 where an edit brings all of it back. Logits of another vocabulary are INVALID_ARGUMENT when the metric is taken.
 */
export function divergenceFrom(logits: Float32Array): Metric {
  return {
    track: [],
    value: (edited) => {
      if (edited.length === logits.length) return divergence(logits, edited);
      const problem = `Logits of ${logits.length} tokens, and the model has ${edited.length}`;
      throw new XpatchError('INVALID_ARGUMENT', `${problem}. Give those of a pass of the same model.`);
    },
  };
}

/** What every measurement takes. */
export interface MeasureOptions {
  signal?: AbortSignal;
  /** Edits measured of all. */
  onProgress?: OnProgress;
}

/** The best next tokens after each of some patches, and without any. */
export interface PatchTops {
  readonly clean: readonly TokenScore[];
  readonly corrupt: readonly TokenScore[];
  /** In the order of the map's values. */
  readonly patched: readonly (readonly TokenScore[])[];
}

/** A prompt with its own edits, and the number that is taken of its answer. */
export interface Measured {
  readonly prompt: Prompt;
  readonly row: PassRow;
  readonly measure: (logits: Float32Array) => number;
}

/** Builds the prompt, and finds the tokens of the metric after it. */
export async function measured(
  context: Context,
  query: RowInput,
  metric: Metric,
  signal?: AbortSignal,
): Promise<Measured> {
  const row = asRow(query);
  const prompt = await context.model.prompt(row.prompt, { signal });
  const tokens = await trackedTokens(context.model, prompt, metric.track);
  const measure = (logits: Float32Array) => {
    const value: unknown = metric.value(logits, tokens);
    if (typeof value === 'number' && !Number.isNaN(value)) return value;
    throw new XpatchError('INVALID_ARGUMENT', `The metric gave ${String(value)}. Its value must be a number.`);
  };
  return { prompt, row: { ...row, prompt }, measure };
}

/**
 * The metric under each of many edits of one prompt, and without any; `tops`: the best tokens, first without any. What the edited
 * prompts have in common is decoded once, so edits of one position should be next to each other.
 */
export async function measureEach(
  context: Context,
  { row, measure }: Measured,
  edits: readonly (readonly Intervention[])[],
  { signal, onProgress, topK = 0 }: MeasureOptions & { topK?: number | undefined } = {},
): Promise<{ plain: number; values: Float64Array; tops: (readonly TokenScore[])[] }> {
  const { interventions = [] } = row;
  const held = rowsWithin(LOGITS_HELD, context.model);
  const all = [[], ...edits]; // first the prompt as it is
  const values = new Float64Array(all.length);
  const tops: (readonly TokenScore[])[] = [];
  for (let first = 0; first < all.length; first += held) {
    const some = all.slice(first, first + held);
    const rows = some.map((more) => ({
      ...row,
      interventions: [...interventions, ...more],
      logits: 'last' as const,
      topK,
    }));
    const results = await context.pass(rows, {
      signal,
      onProgress: ({ done, total }) => onProgress?.({ done: first + (some.length * done) / total, total: all.length }),
    });
    for (const [i, { logits, top }] of results.entries()) {
      values[first + i] = measure(logits.data);
      tops.push(top);
    }
  }
  return { plain: values[0] as number, values: values.subarray(1), tops };
}
