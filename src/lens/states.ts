import { resolveLayers } from '../hooks/points.js';
import { STREAM_HOOKS } from '../hooks/types.js';
import type { Context } from '../model/context.js';
import { HiddenStates } from '../model/hidden-states.js';
import type { PassResult } from '../model/pass.js';
import { XpatchError } from '../util/errors.js';
import { TaskVector } from '../vectors/task-vector.js';

/**
 * A task vector as states of one position; states, and those of a pass, as they are.
 *
 * @throws {XpatchError} INVALID_ARGUMENT for a pass that read none, and for anything that is not states
 */
export function asStates(source: HiddenStates | TaskVector | PassResult): HiddenStates {
  if (!(source instanceof TaskVector)) return requireStates(source);
  const { hook, layers, model } = source.info;
  return new HiddenStates({ hook, layers, model, positions: [0], tokens: [-1] }, source.toArray());
}

/**
 * The states of a source, checked to be ones that the context's model can have.
 *
 * @throws {XpatchError} VECTOR_MISMATCH for another width, LENS_UNSUPPORTED for a point that is not of the residual stream,
 *   LAYER_OUT_OF_RANGE, INVALID_ARGUMENT when there are none
 */
export function statesFor(context: Context, source: HiddenStates | TaskVector | PassResult): HiddenStates {
  const states = asStates(source);
  const { nEmbd, nLayers } = context.model.info;
  const [, , width] = states.shape;
  if (width !== nEmbd) {
    throw new XpatchError('VECTOR_MISMATCH', `States of width ${width} do not fit a model of width ${nEmbd}.`);
  }
  if (!STREAM_HOOKS.includes(states.hook)) {
    const problem = `States at '${states.hook}' are not in the space of the residual stream, which the output head reads`;
    throw new XpatchError('LENS_UNSUPPORTED', `${problem}. Capture ${STREAM_HOOKS.join(', ')}.`);
  }
  resolveLayers(states.layers, nLayers);
  return states;
}

function requireStates(source: HiddenStates | PassResult): HiddenStates {
  if (source instanceof HiddenStates) return source;
  if (typeof source === 'object' && source !== null && 'interventions' in source) {
    if (source.states instanceof HiddenStates) return source.states;
    throw new XpatchError('INVALID_ARGUMENT', "The pass read no states. Give its row `capture: 'all'`.");
  }
  const wanted = 'the `states` of a pass, HiddenStates.load(path), or a TaskVector';
  throw new XpatchError('INVALID_ARGUMENT', `These are not hidden states: give ${wanted}.`);
}
