import { resolveLayers } from '../hooks/points.js';
import type { LayerSelection } from '../hooks/types.js';
import type { VisionStates } from '../images/encoders/encoder.js';
import type { CachedImageEncoder } from '../images/image-cache.js';
import type { ImageSource } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';

/** Why the blocks of an encoder cannot be read; undefined where they can. */
export function towerRefusal({ tower }: Pick<CachedImageEncoder, 'tower'>): string | undefined {
  return tower ? undefined : 'its encoder is one of our own and not mtmd’s, whose graph names the outputs of blocks';
}

/**
 * States of a picture after blocks of its encoder.
 *
 * @throws {XpatchError} HOOK_UNSUPPORTED for an encoder whose blocks, or one of whose blocks, cannot be read; LAYER_OUT_OF_RANGE; as
 *   `Model.prompt` for the picture
 */
export async function readVisionStates(
  encoder: CachedImageEncoder,
  source: ImageSource,
  selection: LayerSelection,
): Promise<VisionStates[]> {
  const refusal = towerRefusal(encoder);
  if (refusal !== undefined) {
    throw new XpatchError('HOOK_UNSUPPORTED', `There is no 'vision.resid_post': ${refusal}. Use another model.`);
  }
  const layers = resolveLayers(selection, encoder.tower?.blocks ?? 0);
  const found = await encoder.statesOf(source, layers);
  const lacking = layers.find((layer) => !found.every((one) => one.layers.includes(layer)));
  if (found.length > 0 && (selection === 'all' || lacking === undefined)) return found;
  const problem = `The graph of this encoder does not name the output of block ${lacking ?? layers[0]}`;
  throw new XpatchError('HOOK_UNSUPPORTED', `${problem}: it is not computed, or in one with others. Ask for 'all'.`);
}
