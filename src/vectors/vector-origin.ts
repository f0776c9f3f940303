import type { HookName, ModelIdentity } from '../model/types.js';
import type { PromptRecord } from '../prompt/prompt-record.js';
import type { TaskSpec } from '../tasks/prompts.js';

/**
 * How a vector was made: prompts at the leaves, arithmetic above them.
 * - `prompts`: mean of the states at the read position of these prompts. `shots` counts the examples as the paper does
 *   (with read position `last-example` the last of them is the dummy query); `seed` drew them.
 * - `capture`: one position of a file made by `xpatch capture`; `token` is its id, -1 for an image row.
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
      readonly prompts: readonly PromptRecord[];
    }
  | { readonly op: 'capture'; readonly position: number; readonly token: number }
  | { readonly op: 'mean' | 'add' | 'subtract'; readonly of: readonly VectorOrigin[] }
  | { readonly op: 'scale'; readonly factor: number; readonly of: readonly [VectorOrigin] }
  | { readonly op: 'random'; readonly seed: number; readonly of: readonly [VectorOrigin] }
  | { readonly op: 'roll'; readonly by: number; readonly of: readonly [VectorOrigin] };

/** Everything about a vector but its numbers. */
export interface TaskVectorInfo {
  /** The model whose states these are. */
  readonly model: ModelIdentity;
  readonly hook: HookName;
  /** Block outputs, 0-based and rising: row i of the data is the state after block `layers[i]`. */
  readonly layers: readonly number[];
  /**
   * The token whose state was read: `last-example` (the `:` of the last example's `A:`, before its answer), `dummy-query`
   * (the `:` of a query after all examples), `instruction` (its final `:`) or `position` (named in a capture).
   */
  readonly readPosition: string;
  readonly origin: VectorOrigin;
}
