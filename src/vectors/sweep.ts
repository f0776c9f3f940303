import { resolveLayers } from '../hooks/points.js';
import type { LayerSelection } from '../hooks/types.js';
import type { Context } from '../model/context.js';
import { asRow, type PassRow, type RowInput } from '../model/pass.js';
import { type RankedToken, rankTokens, trackedTokens } from '../model/tracked.js';
import type { OnProgress, TokenScore } from '../model/types.js';
import type { PositionSelection } from '../prompt/types.js';
import type { TaskVector } from './task-vector.js';

/** Where a vector is patched in, and what is kept from the answers. */
export interface SweepOptions {
  /** Layers to patch, one at a time. Each must be in the vector. Defaults to `all` layers of the model. */
  layers?: LayerSelection;
  /** Defaults to `vector.op`: `replace`, and `add` for a direction. */
  op?: 'replace' | 'add';
  /** Factor on the vector. Defaults to 1. */
  strength?: number;
  /** Where the vector is written in the prompt. Defaults to `last`. */
  positions?: PositionSelection;
  /** Number of best next tokens to return. Defaults to 5. */
  topK?: number;
  /** Token ids, or texts that are one token after the prompt, to follow through the layers wherever they rank. Defaults to none. */
  track?: readonly (string | number)[];
  /** Return the logits over the whole vocabulary too. Defaults to false. */
  logits?: boolean;
  signal?: AbortSignal;
  /** Positions decoded of all. */
  onProgress?: OnProgress;
}

/** What the model says next. */
export interface Said {
  /** Best first. */
  top: TokenScore[];
  /** The tokens of `track`, in order. */
  tracked: RankedToken[];
}

/** What the model says next after a patch at one layer. */
export interface SweptLayer extends Said {
  /** 0-based block whose output was patched. */
  layer: number;
  /** L2 norm of what the patch changed in the residual stream. */
  delta: number;
}

/** What the model says next with a vector patched in at one layer after another. */
export interface Sweep {
  /** What the model says next without a patch. */
  plain: Said;
  /** In the order asked for. */
  layers: SweptLayer[];
  /** Raw logits [layers, n_vocab] of the last position, row by row; only when asked for. */
  logits?: { data: Float32Array; shape: [layers: number, nVocab: number] };
  /** Whether the vector was read from this very model. */
  vectorModel: 'same' | 'foreign';
}

/**
 * Patches a vector into a prompt at one layer after another, each time with the vector's state for that layer, and
 * reads the next token. All layers go through one pass, which decodes what comes before the patched position once.
 *
 * @param query a prompt, or a row with its own edges and interventions, which come first
 * @throws {XpatchError} VECTOR_MISMATCH if the widths differ, LAYER_OUT_OF_RANGE if the model or the vector lacks a
 *   layer, INVALID_ARGUMENT for a tracked text that is not one token, and as `Context.pass`.
 *
 * @example
 * ```ts
 * const vector = await TaskVector.load('capital.safetensors');
 * const sweep = await sweepLayers(context, 'Q:Peru\nA:', vector, { track: ['Lima'] });
 * for (const { layer, tracked } of sweep.layers) console.log(layer, tracked[0]?.probability);
 * ```
 */
export async function sweepLayers(
  context: Context,
  query: RowInput,
  vector: TaskVector,
  options: SweepOptions = {},
): Promise<Sweep> {
  const { op = vector.op, strength = 1, positions = 'last', topK = 5, track = [], signal, onProgress } = options;
  const { model } = context;
  const vectorModel = vector.requireCompatible(model.identity);
  const layers = resolveLayers(options.layers ?? 'all', model.info.nLayers);
  const row = asRow(query);
  const prompt = await model.prompt(row.prompt, { signal });
  const tokens = await trackedTokens(model, prompt, track);
  const { interventions = [], edges } = row;
  const wanted: PassRow = { prompt, edges, topK, ...((tokens.length || options.logits) && { logits: 'last' }) };
  const rows = [
    { ...wanted, interventions },
    ...layers.map((layer) => ({
      ...wanted,
      interventions: [...interventions, vector.at(layer, { op, strength, positions })],
    })),
  ];
  const results = await context.pass(rows, { signal, onProgress });
  const said = results.map(({ top = [], logits }): Said => {
    const tracked = tokens.length && logits ? rankTokens(logits.data, tokens, (id) => model.detokenize([id])) : [];
    return { top, tracked };
  });
  const sweep: Sweep = {
    plain: said[0] as Said,
    layers: layers.map((layer, i) => ({
      layer,
      ...(said[i + 1] as Said),
      delta: results[i + 1]?.interventions.at(-1)?.delta ?? Number.NaN,
    })),
    vectorModel,
  };
  if (options.logits) {
    const { nVocab } = model.info;
    const data = new Float32Array(layers.length * nVocab);
    results.slice(1).forEach(({ logits }, i) => void data.set(logits?.data as Float32Array, i * nVocab));
    sweep.logits = { data, shape: [layers.length, nVocab] };
  }
  return sweep;
}
