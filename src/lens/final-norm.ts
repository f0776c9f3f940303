import type { Context, PassOptions } from '../model/context.js';
import type { HiddenStates } from '../model/hidden-states.js';
import type { PassResult } from '../model/pass.js';
import type { TaskVector } from '../vectors/task-vector.js';
import { statesFor } from './states.js';

/**
 * States of any layer after the model's own final norm: what its output head sees when they are read by `logitLens`.
 *
 * @param states captured states, those of a pass, or a task vector (it has one position)
 * @param options.onProgress states normed of all
 * @throws {XpatchError} VECTOR_MISMATCH for another width, LAYER_OUT_OF_RANGE, LENS_UNSUPPORTED when the architecture has no
 *   final norm, NOT_FINITE, INVALID_ARGUMENT, ARCHITECTURE_UNSUPPORTED, BUSY, ABORTED, DISPOSED.
 *
 * @example
 * ```ts
 * const { states } = await context.run({ prompt: 'Q:Peru\nA:', capture: 'all' });
 * const normed = await finalNorm(context, states);
 * const lens = await logitLens(context, normed, { normalise: false });
 * ```
 */
export async function finalNorm(
  context: Context,
  states: HiddenStates | TaskVector | PassResult,
  options: PassOptions = {},
): Promise<HiddenStates> {
  const checked = statesFor(context, states);
  return checked.withData(await context.norm(checked.data, options));
}
