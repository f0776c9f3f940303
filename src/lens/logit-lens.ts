import type { Context } from '../model/context.js';
import type { HiddenStates } from '../model/hidden-states.js';
import type { PassResult } from '../model/pass.js';
import type { StateReading } from '../model/read-out.js';
import type { OnProgress } from '../model/types.js';
import { XpatchError } from '../util/errors.js';
import type { TaskVector } from '../vectors/task-vector.js';
import { statesFor } from './states.js';

/** What the logit lens returns for each state. */
export interface LensOptions {
  /** How many of the best tokens to return for each state. Defaults to 5. */
  topK?: number;
  /** Token ids whose logit, probability and rank are returned for each state. Defaults to none. */
  tokens?: readonly number[];
  /**
   * Whether the model's final norm comes before its head. Defaults to true, and to false for states at `final_norm`; false is also for
   * those of `finalNorm`.
   */
  normalise?: boolean;
  signal?: AbortSignal;
  /** States decoded of all. */
  onProgress?: OnProgress;
}

/** What one state says. */
export type LensCell = StateReading;

/** A lens over layers x positions: `cells[l][p]` is layer `layers[l]` at position `positions[p]`. */
export interface Lens {
  layers: readonly number[];
  positions: readonly number[];
  cells: LensCell[][];
  /**
   * For each position the lowest layer from which on the highest layer's best token is the best one, up to the top. Empty with `topK` 0.
   */
  settled: number[];
}

/**
 * The logit lens (nostalgebraist 2020): states of any layer read as if they were the last block's output, through the model's
 * own final norm, output head, soft-caps and scales. Memory stays bounded: what is kept of each state is what was asked for.
 *
 * @param states captured states, those of a pass, or a task vector of this model's width (it has one position)
 * @throws XpatchError VECTOR_MISMATCH for another width, LAYER_OUT_OF_RANGE, TOKEN_INVALID, INVALID_ARGUMENT, NOT_FINITE,
 *   LENS_UNSUPPORTED for a point that is not of the residual stream, and when `normalise` is false and the architecture has no final norm, ARCHITECTURE_UNSUPPORTED, BUSY, ABORTED, DISPOSED.
 *
 * @example
 * ```ts
 * const { states } = await context.run({ prompt: 'Q:Peru\nA:', capture: { positions: 'last' } });
 * const lens = await logitLens(context, states, { topK: 3 });
 * lens.cells.forEach(([cell], l) => console.log(lens.layers[l], cell?.top[0]?.text));
 * ```
 */
export async function logitLens(
  context: Context,
  states: HiddenStates | TaskVector | PassResult,
  options: LensOptions = {},
): Promise<Lens> {
  const { topK = 5, tokens = [] } = options;
  const { nVocab } = context.model.info;
  if (!Number.isInteger(topK) || topK < 0 || topK > nVocab) {
    throw new XpatchError('INVALID_ARGUMENT', `top-k must be a whole number from 0 to ${nVocab}, not ${topK}.`);
  }
  const bad = tokens.find((token) => !Number.isInteger(token) || token < 0 || token >= nVocab);
  if (bad !== undefined) {
    throw new XpatchError('TOKEN_INVALID', `Token id ${bad} is outside the vocabulary of ${nVocab}.`);
  }
  const { hook, layers, positions, data } = statesFor(context, states);
  const { normalise = hook !== 'final_norm' } = options;
  const cells = await context.readOut({ layers, positions, data }, { ...options, topK, tokens, normalise });
  return { layers, positions, cells, settled: topK ? positions.map((_, p) => settledAt(layers, cells, p)) : [] };
}

function settledAt(layers: readonly number[], cells: readonly LensCell[][], p: number): number {
  const order = layers
    .map((layer, l) => ({ layer, best: cells[l]?.[p]?.top[0]?.token }))
    .sort((a, b) => b.layer - a.layer);
  let settled = order[0] as (typeof order)[number];
  for (const entry of order) {
    if (entry.best !== order[0]?.best) break;
    settled = entry;
  }
  return settled.layer;
}
