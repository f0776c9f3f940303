import type { PositionRef } from '../prompt/types.js';

/**
 * A place in a decoder block where states can be read and overwritten.
 *
 * `resid_post` is the residual stream after a block: TransformerLens' `blocks.L.hook_resid_post`, llama.cpp's node
 * `l_out-L`, and transformers' `hidden_states[L + 1]` (whose last element is after the final norm, unlike here).
 */
export type HookName = 'resid_post';

/** Hook names in the order of the native enum. */
export const HOOKS: readonly HookName[] = ['resid_post'];

/** What an intervention does to a row `h`; in the order of the native enum. */
export const OPS = ['replace', 'add', 'scale', 'zero'] as const;
export type InterventionOp = (typeof OPS)[number];

/** Layers by their 0-based index: layer L is the output of block L. */
export type LayerSelection = 'all' | readonly number[];

/**
 * An edit of hidden states during a pass.
 * `replace`: h = value; `add`: h = h + (factor ?? 1) * value; `scale`: h = factor * h; `zero`: h = 0.
 */
export interface Intervention {
  hook: HookName;
  /** 0-based block whose output is edited. */
  layer: number;
  positions: PositionRef | readonly PositionRef[];
  op: InterventionOp;
  /** n_embd numbers for `replace` and `add`. */
  value?: Float32Array;
  /** For `scale` (required) and `add`. Defaults to 1. */
  factor?: number;
}

/** Hidden states of one row of a pass: `data[(l * positions.length + p) * nEmbd + i]`. */
export interface HiddenStates {
  hook: HookName;
  data: Float32Array;
  shape: [layers: number, positions: number, nEmbd: number];
  /** Layer of each entry of the first axis. */
  layers: number[];
  /** Position in the prompt of each entry of the second axis. */
  positions: number[];
  /** Token id at each of these positions, -1 for a row of a picture. */
  tokens: number[];
}

/** Which model states belong to. Two models are the same when their hashes are. */
export interface ModelIdentity {
  /** SHA-256 of the GGUF file, hex. */
  hash: string;
  architecture: string;
  name: string;
  nEmbd: number;
  nLayers: number;
}

/** A token with its logit and probability under the softmax over the whole vocabulary. */
export interface TokenScore {
  token: number;
  text: string;
  logit: number;
  probability: number;
}

/** What an intervention did: the L2 norm of the change of the row. 0 only if the new value equals the old. */
export interface InterventionReport {
  hook: HookName;
  layer: number;
  position: number;
  op: InterventionOp;
  delta: number;
}

/** Progress of a long call. */
export interface Progress {
  done: number;
  total: number;
}
export type OnProgress = (progress: Progress) => void;
