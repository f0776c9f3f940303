import type { Model } from '../model/model.js';
import type { TaskSpec } from '../tasks/prompts.js';
import { XpatchError } from '../util/errors.js';

/**
 * Checks that a model can read what prompts are to be made of.
 * @throws {XpatchError} INVALID_ARGUMENT for none or one twice, IMAGE_UNSUPPORTED for pictures without a picture encoder
 */
export function requireModalities(model: Pick<Model, 'hasVision'>, specs: readonly TaskSpec[]): void {
  if (specs.length === 0 || new Set(specs).size < specs.length) {
    const message = `Prompts need at least one modality, each named once, not [${specs.join(', ')}].`;
    throw new XpatchError('INVALID_ARGUMENT', message);
  }
  if (specs.includes('image') && !model.hasVision) {
    const message = 'Image prompts need a model with a picture encoder: give --mmproj, or leave out image.';
    throw new XpatchError('IMAGE_UNSUPPORTED', message);
  }
}
