import { XpatchError } from '../util/errors.js';
import type { Condition, Experiment } from './types.js';

/** An experiment from a preset or a config file. */
export interface LoadedExperiment {
  readonly experiment: Experiment;
  /** Whether a model without a picture encoder may run it with text queries: a preset whose queries are not spelt out. */
  readonly textToo: boolean;
  /** What was left out of a preset for its tasks, one sentence each. */
  readonly left?: readonly string[];
}

/** Without the conditions that do not fit, and their names. */
function without(experiment: Experiment, fits: (condition: Condition) => boolean) {
  const { conditions } = experiment;
  const dropped = conditions.filter((condition) => !fits(condition)).map(({ name }) => name);
  return { experiment: { ...experiment, conditions: conditions.filter(fits) }, dropped };
}

/** A preset as its tasks can run it: one task alone has no other whose vectors could be patched. */
export function fitToTasks(preset: Experiment): { experiment: Experiment; notes: string[] } {
  const { tasks } = preset;
  if (!Array.isArray(tasks) || tasks.length !== 1) return { experiment: preset, notes: [] };
  const { experiment, dropped } = without(preset, ({ control }) => control !== 'wrong-task');
  const notes = dropped.length > 0 ? [`One task has no other to take vectors of: without ${dropped.join(', ')}.`] : [];
  return { experiment, notes };
}

/**
 * The experiment as a model can run it. A model without a picture encoder gets text queries and no condition with images,
 * if the experiment is a preset that has a text part.
 *
 * @returns the experiment, and what was left out, one sentence each
 * @throws {XpatchError} IMAGE_UNSUPPORTED if there is no text part
 */
export function fitToModel(
  { experiment, textToo, left = [] }: LoadedExperiment,
  hasVision: boolean,
): { experiment: Experiment; notes: string[] } {
  const pictured = ({ kind, spec, query }: Condition) =>
    kind !== 'majority' && (spec === 'image' || (query ?? experiment.query) === 'image');
  const measured = experiment.measure !== undefined && experiment.query === 'image' ? ['The measurement'] : [];
  const withImages = [...measured, ...experiment.conditions.filter(pictured).map(({ name }) => name)];
  if (hasVision || withImages.length === 0) return { experiment, notes: [...left] };
  if (!textToo) {
    const [first, ...more] = withImages;
    const others = more.length > 1 ? `${more.length} more conditions` : more[0];
    const which = others === undefined ? `${first} needs` : `${first} and ${others} need`;
    const message = `${which} pictures, but the model has no picture encoder. Give --mmproj, or leave out image conditions.`;
    throw new XpatchError('IMAGE_UNSUPPORTED', message);
  }
  const { experiment: text, dropped } = textPart(experiment);
  const less = dropped.length > 0 ? `, without ${dropped.join(', ')}` : '';
  return { experiment: text, notes: [...left, `The model has no picture encoder: text queries${less}.`] };
}

/** The conditions without images, with text queries, and the names of the others. */
export function textPart(experiment: Experiment): { experiment: Experiment; dropped: string[] } {
  return without({ ...experiment, query: 'text' }, ({ spec, query }) => spec !== 'image' && query !== 'image');
}
