import { XpatchError } from '../util/errors.js';
import type { LoadedExperiment } from './config.js';
import type { Condition, Experiment } from './types.js';

/**
 * The experiment as a model can run it. A model without a picture encoder gets text queries and no condition with images,
 * if the experiment is a preset that has a text part.
 *
 * @returns the experiment, and what was left out, one sentence each
 * @throws {XpatchError} IMAGE_UNSUPPORTED if there is no text part
 */
export function fitToModel(
  { experiment, textToo }: LoadedExperiment,
  hasVision: boolean,
): { experiment: Experiment; notes: string[] } {
  const pictured = ({ kind, spec, query }: Condition) =>
    kind !== 'majority' && (spec === 'image' || (query ?? experiment.query) === 'image');
  const measured = experiment.measure !== undefined && experiment.query === 'image' ? ['The measurement'] : [];
  const withImages = [...measured, ...experiment.conditions.filter(pictured).map(({ name }) => name)];
  if (hasVision || withImages.length === 0) return { experiment, notes: [] };
  if (!textToo) {
    const [first, ...more] = withImages;
    const others = more.length > 1 ? `${more.length} more conditions` : more[0];
    const which = others === undefined ? `${first} needs` : `${first} and ${others} need`;
    const message = `${which} pictures, but the model has no picture encoder. Give --mmproj, or leave out image conditions.`;
    throw new XpatchError('IMAGE_UNSUPPORTED', message);
  }
  const { experiment: text, dropped } = textPart(experiment);
  const left = dropped.length > 0 ? `, without ${dropped.join(', ')}` : '';
  return { experiment: text, notes: [`The model has no picture encoder: text queries${left}.`] };
}

/** The conditions without images, with text queries, and the names of the others. */
export function textPart(experiment: Experiment): { experiment: Experiment; dropped: string[] } {
  const isText = ({ spec, query }: Condition) => spec !== 'image' && query !== 'image';
  return {
    experiment: { ...experiment, query: 'text', conditions: experiment.conditions.filter(isText) },
    dropped: experiment.conditions.filter((condition) => !isText(condition)).map(({ name }) => name),
  };
}
