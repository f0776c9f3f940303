import type { HookName } from '../hooks/types.js';
import type { ModelIdentity } from '../model/types.js';
import type { PromptRecord } from '../prompt/prompt-record.js';
import type { TaskSpec } from '../tasks/prompts.js';
import type { PromptTemplate } from '../tasks/template.js';

/**
 * How a vector was made: prompts at the leaves, arithmetic above them.
 * - `prompts`: mean of the states at the read position of these prompts. `shots` counts the examples as the paper does
 *   (with read position `last-example` the last of them is the dummy query); `seed` drew them. No `template` is the paper's.
 * - `capture`: one position of a file made by `xpatch capture`; `token` is its id, -1 for an image row.
 * - `contrast`: from the states of prompts of two kinds, as `steeringVector` makes it.
 * - `control-vector`: read from a GGUF file of directions; `numbering` says how its layers were counted (see `TaskVector.load`).
 * - `function`: what some heads add, of their mean states over prompts, as `functionVector` makes it.
 * - `random`: Gaussian noise with the layer norms of another vector.
 * - `roll`: every layer's state moved `by` layers up, those of the top to the bottom.
 */
export type VectorOrigin =
  | {
      readonly op: 'prompts';
      readonly task: string;
      readonly spec: TaskSpec;
      readonly shots: number;
      readonly seed: number;
      readonly template?: PromptTemplate;
      readonly prompts: readonly PromptRecord[];
    }
  | { readonly op: 'capture'; readonly position: number; readonly token: number }
  | {
      readonly op: 'contrast';
      readonly method: 'mean' | 'pca';
      readonly positive: readonly PromptRecord[];
      readonly negative: readonly PromptRecord[];
    }
  | { readonly op: 'control-vector'; readonly numbering: DirectionNumbering }
  | {
      readonly op: 'function';
      readonly heads: readonly { readonly layer: number; readonly head: number }[];
      readonly prompts: readonly PromptRecord[];
    }
  | { readonly op: 'mean' | 'add' | 'subtract'; readonly of: readonly VectorOrigin[] }
  | { readonly op: 'scale'; readonly factor: number; readonly of: readonly [VectorOrigin] }
  | { readonly op: 'random'; readonly seed: number; readonly of: readonly [VectorOrigin] }
  | { readonly op: 'roll'; readonly by: number; readonly of: readonly [VectorOrigin] };

/**
 * What `direction.N` of a control-vector file means. `applied`: the output of block N, where llama.cpp adds it and repeng read it.
 * `measured`: the output of block N - 1, where llama.cpp's cvector-generator read it.
 */
export type DirectionNumbering = 'applied' | 'measured';

const DIRECTIONS: readonly VectorOrigin['op'][] = ['contrast', 'control-vector', 'function'];

/** Whether a vector is a direction, which is added to states, rather than a state, which is put in their place. */
export function isDirection(origin: VectorOrigin): boolean {
  if (DIRECTIONS.includes(origin.op)) return true;
  return 'of' in origin && origin.of.every(isDirection);
}

/** Everything about a vector but its numbers. */
export interface TaskVectorInfo {
  /** The model whose states these are. */
  readonly model: ModelIdentity;
  readonly hook: HookName;
  /** Blocks, 0-based and rising: row i of the data is the state at the hook of block `layers[i]`. */
  readonly layers: readonly number[];
  /** Heads that each state is made of, side by side, at a hook that has heads. */
  readonly heads?: readonly number[] | undefined;
  /**
   * The token whose state was read: `last-example` (the `:` of the last example's `A:`, before its answer), `dummy-query`
   * (the `:` of a query after all examples), `instruction` (its final `:`), `position` (named in a capture), `last`
   * (of the prompts of a steering vector) or `unknown` (of a control vector).
   */
  readonly readPosition: string;
  readonly origin: VectorOrigin;
}
