import type { Context } from '../model/context.js';
import { type PassResult, resolveLayers } from '../model/pass.js';
import type { HiddenStates } from '../model/types.js';
import { XpatchError } from '../util/errors.js';
import { TaskVector } from '../vectors/task-vector.js';

/**
 * A task vector as states of one position; states, and those of a pass, as they are.
 *
 * @throws {XpatchError} INVALID_ARGUMENT for a pass that read none, and for anything that is no states
 */
export function asStates(source: HiddenStates | TaskVector | PassResult): HiddenStates {
  if (!(source instanceof TaskVector)) return requireStates(source);
  const states = source;
  const { hook, layers, model } = states.info;
  const shape: HiddenStates['shape'] = [layers.length, 1, model.nEmbd];
  return { hook, data: states.toArray(), shape, layers: [...layers], positions: [0], tokens: [-1] };
}

/**
 * The states of a source, checked to be ones that the context's model can have.
 *
 * @throws {XpatchError} VECTOR_MISMATCH for another width, LAYER_OUT_OF_RANGE, INVALID_ARGUMENT for none at all
 */
export function statesFor(context: Context, source: HiddenStates | TaskVector | PassResult): HiddenStates {
  const states = asStates(source);
  const { data, layers, positions, shape } = states;
  const { nEmbd, nLayers } = context.model.info;
  if (shape[2] !== nEmbd) {
    throw new XpatchError('VECTOR_MISMATCH', `States of width ${shape[2]} do not fit a model of width ${nEmbd}.`);
  }
  resolveLayers(layers, nLayers);
  if (positions.length === 0) {
    throw new XpatchError('INVALID_ARGUMENT', 'The states have no positions. Capture at least one.');
  }
  if (data.length !== layers.length * positions.length * nEmbd) {
    const problem = `${data.length} numbers do not make ${layers.length} layers of ${positions.length} positions`;
    throw new XpatchError('INVALID_ARGUMENT', `${problem} and width ${nEmbd}. Give states as a pass returned them.`);
  }
  return states;
}

function requireStates(source: HiddenStates | PassResult): HiddenStates {
  const pass = typeof source === 'object' && source !== null && 'interventions' in source;
  const states = pass ? source.states : source;
  if (pass && !states) {
    throw new XpatchError(
      'INVALID_ARGUMENT',
      'The pass read no states. Give its row `capture: { layers, positions }`.',
    );
  }
  const { data, shape, layers, positions } = (states ?? {}) as Partial<HiddenStates>;
  if (!(data && typeof data.length === 'number' && [shape, layers, positions].every(Array.isArray))) {
    const wanted = 'data, shape, layers and positions, as a pass returns them';
    throw new XpatchError('INVALID_ARGUMENT', `These are no hidden states: they need ${wanted}.`);
  }
  return states as HiddenStates;
}
