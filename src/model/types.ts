import type { HookName } from '../hooks/types.js';
import type { PromptRecord } from '../prompt/prompt-record.js';

/** Everything about hidden states except their numbers. */
export interface HiddenStatesInfo {
  readonly hook: HookName;
  /** Layer of each entry of the first axis, 0-based. */
  readonly layers: readonly number[];
  /** Heads that each state is made of, side by side. Defaults to none: the point has no heads. */
  readonly heads?: readonly number[] | undefined;
  /** Position in the prompt of each entry of the second axis. */
  readonly positions: readonly number[];
  /** Token id at each of these positions, -1 for a row of a picture. */
  readonly tokens: readonly number[];
  /** Position in the prompt of each of its marks. Defaults to none. */
  readonly marks?: Readonly<Record<string, number>>;
  /** The model whose states these are. */
  readonly model: ModelIdentity;
  /** The prompt that they were read from, if known. */
  readonly prompt?: PromptRecord;
}

/** Which model states belong to. Two models are the same if their hashes are. */
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

/** Progress of a long call. */
export interface Progress {
  done: number;
  total: number;
}
/** Called as work proceeds. */
export type OnProgress = (progress: Progress) => void;
