import type { Context } from '../model/context.js';
import { type PassRow, resolveLayers } from '../model/pass.js';
import type { LayerSelection, OnProgress, TokenScore } from '../model/types.js';
import type { Prompt } from '../prompt/prompt.js';
import type { PositionRef } from '../prompt/types.js';
import type { TaskVector } from './task-vector.js';

export interface SweepOptions {
  /** Layers to patch, one at a time. Each must be in the vector. Defaults to `all` layers of the model. */
  layers?: LayerSelection;
  /** Defaults to `replace`. */
  op?: 'replace' | 'add';
  /** Where the vector is written in the prompt. Defaults to `last`. */
  position?: PositionRef;
  /** Number of best next tokens to return. Defaults to 5. */
  topK?: number;
  /** Return the logits over the whole vocabulary too. Defaults to false. */
  logits?: boolean;
  /**
   * Decode the whole prompt again for every layer, in passes of their own, instead of sharing what comes before the patch:
   * the slow reference for tests and benchmarks. Defaults to false.
   */
  naive?: boolean;
  signal?: AbortSignal;
  /** Positions decoded of all. */
  onProgress?: OnProgress;
}

/** What the model says next after a patch at one layer. */
export interface SweptLayer {
  /** 0-based block whose output was patched. */
  layer: number;
  /** Best first. */
  top: TokenScore[];
  /** L2 norm of what the patch changed in the residual stream. */
  delta: number;
}

export interface Sweep {
  /** What the model says next without a patch, best first. */
  plain: TokenScore[];
  /** In the order asked for. */
  layers: SweptLayer[];
  /** Raw logits [layers, n_vocab] of the last position, row by row; only when asked for. */
  logits?: { data: Float32Array; shape: [layers: number, nVocab: number] };
  /** Whether the vector was read from this very model. */
  vectorModel: 'same' | 'foreign';
}

/**
 * Patches a vector into a prompt at one layer after another, each time with the vector's own state of that layer, and
 * looks at the next token. All layers go through one pass, which decodes what comes before the patched position once.
 *
 * @throws {XpatchError} VECTOR_MISMATCH when the widths differ, LAYER_OUT_OF_RANGE when the model or the vector lacks a
 *   layer, and as `Context.pass`.
 */
export async function sweepLayers(
  context: Context,
  prompt: Prompt,
  vector: TaskVector,
  options: SweepOptions = {},
): Promise<Sweep> {
  const { op = 'replace', position = 'last', topK = 5, naive = false, signal, onProgress } = options;
  const { model } = context;
  const vectorModel = vector.requireCompatible(model.identity);
  const layers = resolveLayers(options.layers ?? 'all', model.info.nLayers);
  const plain: PassRow = { prompt, topK };
  const patched = layers.map(
    (layer): PassRow => ({
      prompt,
      topK,
      interventions: [vector.toIntervention(layer, { op, position })],
      ...(options.logits && { logits: 'last' }),
    }),
  );
  const results = [];
  if (naive) {
    const total = prompt.length * (layers.length + 1);
    for (const [i, row] of [plain, ...patched].entries()) {
      const onRow: OnProgress = ({ done }) => onProgress?.({ done: i * prompt.length + done, total });
      results.push(...(await context.pass([row], { signal, onProgress: onRow })));
    }
  } else {
    results.push(...(await context.pass([plain, ...patched], { signal, onProgress })));
  }
  const [first, ...rest] = results;
  const sweep: Sweep = {
    plain: first?.top ?? [],
    layers: rest.map(({ top = [], interventions }, i) => ({
      layer: layers[i] as number,
      top,
      delta: interventions[0]?.delta ?? Number.NaN,
    })),
    vectorModel,
  };
  if (options.logits) {
    const { nVocab } = model.info;
    const data = new Float32Array(layers.length * nVocab);
    rest.forEach(({ logits }, i) => {
      data.set(logits?.data as Float32Array, i * nVocab);
    });
    sweep.logits = { data, shape: [layers.length, nVocab] };
  }
  return sweep;
}
