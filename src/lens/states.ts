import type { HiddenStates } from '../model/types.js';
import { TaskVector } from '../vectors/task-vector.js';

/** A task vector as states of one position; states as they are. */
export function asStates(states: HiddenStates | TaskVector): HiddenStates {
  if (!(states instanceof TaskVector)) return states;
  const { hook, layers, model } = states.info;
  const shape: HiddenStates['shape'] = [layers.length, 1, model.nEmbd];
  return { hook, data: states.toArray(), shape, layers: [...layers], positions: [0], tokens: [-1] };
}
