import { XpatchError } from '../errors.js';
import type { Context, HiddenStates, OnProgress, TokenScore } from '../model/index.js';
import type { TaskVector } from '../vectors/task-vector.js';

export interface LensOptions {
  /** How many of the best tokens to return for each state. Defaults to 5. */
  topK?: number;
  /** Token ids whose logit, probability and rank are returned for each state. Defaults to none. */
  tokens?: readonly number[];
  signal?: AbortSignal;
  /** States decoded of all. */
  onProgress?: OnProgress;
}

/** What one state says. */
export interface LensCell {
  /** The best tokens, best first. */
  top: TokenScore[];
  /** The chosen tokens, in the order they were asked for; `rank` 0 is the best token. */
  tokens: (TokenScore & { rank: number })[];
  /** Entropy of the distribution over the vocabulary, nats. */
  entropy: number;
  /** KL divergence of this distribution from that of the highest layer at the same position, nats; 0 for that layer itself. */
  kl: number;
}

/** A lens over layers x positions: `cells[l][p]` is layer `layers[l]` at position `positions[p]`. */
export interface Lens {
  layers: number[];
  positions: number[];
  cells: LensCell[][];
  /**
   * For each position the lowest layer from which on the highest layer's best token is the best one, up to the top.
   */
  settled: number[];
}

/** Rows whose logits are in memory at once, whatever the size of the grid. */
const CHUNK = 128;

/**
 * The logit lens (nostalgebraist 2020): states of any layer read as if they were the last block's output, through the model's
 * own final norm, output head, soft-caps and scales. Memory stays bounded: what is kept of each state is what was asked for.
 *
 * @param states captured states, or a task vector of this model's width (it has one position)
 * @throws XpatchError VECTOR_MISMATCH for another width, TOKEN_INVALID, INVALID_ARGUMENT, BUSY, ABORTED, DISPOSED.
 */
export async function logitLens(
  context: Context,
  states: HiddenStates | TaskVector,
  options: LensOptions = {},
): Promise<Lens> {
  const { topK = 5, tokens = [], signal, onProgress } = options;
  const { nVocab } = context.model.info;
  if (!Number.isInteger(topK) || topK < 0 || topK > nVocab) {
    throw new XpatchError('INVALID_ARGUMENT', `topK must be a whole number from 0 to ${nVocab}, not ${topK}.`);
  }
  const { data, layers, positions, width } = grid(context, states);
  const top = layers.indexOf(Math.max(...layers));
  const cells: LensCell[][] = layers.map(() => new Array(positions.length));

  // Position by position, so that the highest layer, which the others are compared with, is always in the same chunk.
  const perChunk = Math.max(1, Math.floor(CHUNK / layers.length));
  for (let first = 0; first < positions.length; first += perChunk) {
    const count = Math.min(perChunk, positions.length - first);
    const rows = count * layers.length;
    const block = new Float32Array(rows * width);
    const reference = new Int32Array(rows);
    for (let p = 0; p < count; p++) {
      for (let l = 0; l < layers.length; l++) {
        const from = (l * positions.length + first + p) * width;
        block.set(data.subarray(from, from + width), (p * layers.length + l) * width);
        reference[p * layers.length + l] = p * layers.length + top;
      }
    }
    const result = await context.readOut(block, { rows, topK, tokens, reference, signal });
    for (let p = 0; p < count; p++) {
      for (let l = 0; l < layers.length; l++)
        (cells[l] as LensCell[])[first + p] = result[p * layers.length + l] as LensCell;
    }
    onProgress?.({ done: (first + count) * layers.length, total: positions.length * layers.length });
  }
  return { layers, positions, cells, settled: positions.map((_, p) => settledAt(layers, cells, p)) };
}

function grid(context: Context, states: HiddenStates | TaskVector) {
  const width = context.model.info.nEmbd;
  if ('shape' in states) {
    if (states.shape[2] !== width) {
      throw new XpatchError(
        'VECTOR_MISMATCH',
        `States of width ${states.shape[2]} do not fit a model of width ${width}.`,
      );
    }
    return { data: states.data, layers: states.layers, positions: states.positions, width };
  }
  states.requireCompatible(context.model.identity);
  return { data: states.toArray(), layers: [...states.info.layers], positions: [0], width };
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
