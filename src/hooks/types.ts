import type { PositionSelection } from '../prompt/types.js';

/** The points of a model, in the order of the native enum. @internal */
export const HOOKS = [
  'embed',
  'resid_pre',
  'resid_mid',
  'resid_post',
  'attn_out',
  'mlp_out',
  'z',
  'q',
  'k',
  'v',
  'attn_scores',
  'pattern',
  'mlp_post',
  'router',
  'final_norm',
] as const;
/**
 * A point of a model where states can be read and overwritten, in TransformerLens' names.
 *
 * - `embed`: what the first block reads: embeddings of tokens (times the model's own factor, with learned positions) and rows
 *   of pictures. There is one, at layer 0.
 * - `resid_pre`, `resid_mid`, `resid_post`: the residual stream before a block, between attention and MLP, and after the block.
 *   `resid_post` is llama.cpp's `l_out-L` and transformers' `hidden_states[L + 1]` (whose last element is after the final norm,
 *   unlike here). In models with a deepstack (Qwen3-VL) it holds the rows of pictures that are added after the block.
 * - `attn_out`, `mlp_out`: what attention and MLP add to the stream, norms and factors after them included, so that
 *   `resid_pre + attn_out + mlp_out` is the block's output.
 * - `z`: what the heads hand to the output projection, [heads, size of a head].
 * - `q`, `k`, `v`: queries, keys and values of the heads; q and k after their position encoding. Of k and v there may be fewer heads.
 * - `attn_scores`: scaled and capped scores as the softmax reads them, [heads, positions]; -infinity for what is not seen.
 * - `pattern`: the softmax of them, [heads, positions]; 0 for what is not seen.
 * - `mlp_post`: the neurons of the MLP, as its last projection reads them.
 * - `router`: the logits by which a mixture of experts chooses them.
 * - `final_norm`: the stream after the final norm. There is one, at the last layer.
 */
export type HookName = (typeof HOOKS)[number];

/** Points with one place in the model, and which end of its layers that is. @internal */
export const ONE_PLACE: Readonly<Partial<Record<HookName, 'first' | 'last'>>> = { embed: 'first', final_norm: 'last' };

/** Points whose states are as wide as the residual stream. @internal */
export const STREAM_HOOKS: readonly HookName[] = [
  'embed',
  'resid_pre',
  'resid_mid',
  'resid_post',
  'attn_out',
  'mlp_out',
  'final_norm',
];

/** Points that have a number for each position of the prompt. @internal */
export const ATTENTION_HOOKS: readonly HookName[] = ['attn_scores', 'pattern'];

/** What an intervention does to a row `h`. */
export const OPS = ['replace', 'add', 'scale', 'zero', 'project', 'clamp', 'noise', 'mean'] as const;
/** What an intervention does: see `Intervention`. */
export type InterventionOp = (typeof OPS)[number];

/** Operations of the addon, in the order of the native enum. */
export const NATIVE_OPS = ['replace', 'add', 'scale', 'zero', 'remove', 'keep', 'clamp', 'cut'] as const;
/** An operation of the addon. @internal */
export type NativeOp = (typeof NATIVE_OPS)[number];

/** Layers by their 0-based index: layer L is block L. */
export type LayerSelection = 'all' | readonly number[];

/**
 * Which steps of a generation an intervention edits: the `prompt` (also in a pass, which has nothing else), each `generated`
 * token that is decoded (all but the last one), `all` of both, or every n-th of the generated ones.
 */
export type Steps = 'prompt' | 'generated' | 'all' | { readonly every: number };

/** States of some layers and positions at one point, as a capture gives them: a `HiddenStates`. */
export interface StateSet {
  readonly hook: HookName;
  readonly layers: readonly number[];
  readonly positions: readonly number[];
  /** Heads that the states are of, where the point has heads. */
  readonly heads?: readonly number[] | undefined;
  readonly data: Float32Array;
}

/**
 * An edit of states.
 * - `replace`: h = value
 * - `add`: h = h + factor * value
 * - `scale`: h = factor * h
 * - `zero`: h = 0
 * - `project`: with the unit vector u along `value`, h = h - factor * (h . u) u removes a direction; with `keep` h = h - factor * (h - (h . u) u)
 *   leaves nothing else
 * - `clamp`: no number of h is below `min` or above `max`
 * - `noise`: h = h + factor * s * n, where n is Gaussian noise of variance 1, other for each layer and position, and s the standard
 *   deviation of the model's embeddings (Meng et al., "Locating and Editing Factual Associations in GPT", 2022, with a factor of 3)
 * - `mean`: h = the mean of the states `of` at the same layer
 */
export interface Intervention {
  /** Defaults to `resid_post`. */
  readonly hook?: HookName;
  /** 0-based blocks that are edited: one, a list, or `all`. Defaults to the only one, for `embed` and `final_norm`. */
  readonly layers?: number | LayerSelection;
  /** Heads that are edited, at points that have heads. Defaults to all. */
  readonly heads?: readonly number[];
  /** Where in the prompt; a generated token has no other position than its own. Defaults to `last`. */
  readonly positions?: PositionSelection;
  /** Defaults to `prompt`. */
  readonly steps?: Steps;
  readonly op: InterventionOp;
  /**
   * For `replace`, `add` and `project`: as many numbers as the point has (with `heads`, those heads' may be given alone), for all
   * layers or a list with one entry a layer.
   */
  readonly value?: Float32Array | readonly Float32Array[];
  /** For `scale` (required), `add`, `project` and `noise`: a number for all layers or a list with one entry a layer. Defaults to 1. */
  readonly factor?: number | readonly number[];
  /** For `project`: whether the direction is kept instead of removed. Defaults to false. */
  readonly keep?: boolean;
  /** For `clamp`. Defaults to no bound. */
  readonly min?: number;
  /** For `clamp`. Defaults to no bound. */
  readonly max?: number;
  /** For `noise`: seed of the noise. Defaults to 1. */
  readonly seed?: number;
  /** For `mean`: states of the same point with all its heads, from one capture or many. */
  readonly of?: readonly StateSet[];
}

/**
 * Attention that is knocked out: from `to`, heads of some layers see nothing of `from`, and their patterns are made of what is left.
 * With flash attention all heads of a layer at once only.
 */
export interface Edge {
  /** 0-based blocks: one, a list, or `all`. */
  readonly layers: number | LayerSelection;
  /** Defaults to all. */
  readonly heads?: readonly number[];
  /** Positions that are not seen any more. Those that `to` does not see anyway are passed over, unless that is all of them. */
  readonly from: PositionSelection;
  /** Positions that do not see them any more. Defaults to `last`. */
  readonly to?: PositionSelection;
  /** Defaults to `prompt`. */
  readonly steps?: Steps;
}

/** What an intervention did to one state. */
export interface InterventionReport {
  hook: HookName;
  layer: number;
  /** Position in the prompt and what was generated after it. */
  position: number;
  /** 0 for the prompt, n for the n-th generated token. */
  step: number;
  op: InterventionOp | 'knock-out';
  /** L2 norm of the change. 0 only if the new value equals the old. Of a knock-out, how many edges were cut, over all its heads. */
  delta: number;
}
