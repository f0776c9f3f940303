import type { PromptRecord } from '../prompt/prompt-record.js';
import type { PositionSelection } from '../prompt/types.js';

/**
 * A place in a decoder block where states can be read and overwritten.
 *
 * `resid_post` is the residual stream after a block: TransformerLens' `blocks.L.hook_resid_post`, llama.cpp's node
 * `l_out-L`, and transformers' `hidden_states[L + 1]` (whose last element is after the final norm, unlike here). In models with a
 * deepstack (Qwen3-VL) it holds the rows of pictures that are added behind the block, as the next block reads them.
 */
export type HookName = 'resid_post';

/** Hook names in the order of the native enum. */
export const HOOKS: readonly HookName[] = ['resid_post'];

/** What an intervention does to a row `h`; in the order of the native enum. */
export const OPS = ['replace', 'add', 'scale', 'zero'] as const;
/** What an intervention does: see `Intervention`. */
export type InterventionOp = (typeof OPS)[number];

/** Layers by their 0-based index: layer L is the output of block L. */
export type LayerSelection = 'all' | readonly number[];

/**
 * Which steps of a generation an intervention edits: the `prompt` (also in a pass, which has nothing else), each `generated`
 * token that is decoded (all but the last one), `all` of both, or every n-th of the generated ones.
 */
export type Steps = 'prompt' | 'generated' | 'all' | { readonly every: number };

/**
 * An edit of hidden states.
 * `replace`: h = value; `add`: h = h + factor * value; `scale`: h = factor * h; `zero`: h = 0.
 */
export interface Intervention {
  /** Defaults to `resid_post`. */
  readonly hook?: HookName;
  /** 0-based blocks whose output is edited: one, a list, or `all`. */
  readonly layers: number | LayerSelection;
  /** Where in the prompt; a generated token has no other position than its own. Defaults to `last`. */
  readonly positions?: PositionSelection;
  /** Defaults to `prompt`. */
  readonly steps?: Steps;
  readonly op: InterventionOp;
  /** For `replace` and `add`: n_embd numbers, for all layers or a list with one entry a layer. */
  readonly value?: Float32Array | readonly Float32Array[];
  /** For `scale` (required) and `add`: a number for all layers or a list with one entry a layer. Defaults to 1. */
  readonly factor?: number | readonly number[];
}

/** Everything about hidden states but their numbers. */
export interface HiddenStatesInfo {
  readonly hook: HookName;
  /** Layer of each entry of the first axis: 0-based block outputs. */
  readonly layers: readonly number[];
  /** Position in the prompt of each entry of the second axis. */
  readonly positions: readonly number[];
  /** Token id at each of these positions, -1 for a row of a picture. */
  readonly tokens: readonly number[];
  /** Position in the prompt of each of its marks. Defaults to none. */
  readonly marks?: Readonly<Record<string, number>>;
  /** The model whose states these are. */
  readonly model: ModelIdentity;
  /** The prompt that they were read from, where it is known. */
  readonly prompt?: PromptRecord;
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

/** What an intervention did to one state. */
export interface InterventionReport {
  hook: HookName;
  layer: number;
  /** Position in the prompt and what was generated behind it. */
  position: number;
  /** 0 for the prompt, n for the n-th generated token. */
  step: number;
  op: InterventionOp;
  /** L2 norm of the change. 0 only if the new value equals the old. */
  delta: number;
}

/** Progress of a long call. */
export interface Progress {
  done: number;
  total: number;
}
/** Called as work goes on. */
export type OnProgress = (progress: Progress) => void;
