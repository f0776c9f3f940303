import type { ModelHandle, NativeModelInfo } from '../../native/addon.js';
import type { EncoderOptions, ImageEncoder } from './encoder.js';
import { openFuyu } from './fuyu.js';
import { openIdefics2 } from './idefics2.js';
import { openMtmd } from './mtmd.js';

export type { ImageEncoder } from './encoder.js';

/**
 * Opens the picture encoder of an mmproj file that `checkProjectorFile` has accepted, for the model that reads its rows.
 *
 * @throws XpatchError MMPROJ_INVALID, DEVICE_UNKNOWN, NATIVE_FAILURE.
 */
export function openEncoder(
  model: { handle: ModelHandle; info: NativeModelInfo },
  path: string,
  options: EncoderOptions,
): Promise<ImageEncoder> {
  if (options.projector === 'fuyu') return openFuyu(model.info, path, options);
  if (options.projector === 'idefics2') return openIdefics2(model.info, path, options);
  return openMtmd(model, path, options);
}
