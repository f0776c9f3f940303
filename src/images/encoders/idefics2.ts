import { readGgufHeader } from '../../gguf/gguf.js';
import { type Idefics2Shape, readIdefics2Shape } from '../../gguf/idefics2-shape.js';
import type { NativeModelInfo, WeightsHandle } from '../../native/addon.js';
import { native, nativeError } from '../../native/index.js';
import type { Framing } from '../../prompt/framing.js';
import type { Segment } from '../../prompt/prompt.js';
import type { RgbImage } from '../../prompt/types.js';
import { XpatchError } from '../../util/errors.js';
import { resizeBilinear } from '../resize.js';
import { blankRows, causalRows, type EncoderOptions, type ImageEncoder } from './encoder.js';

/**
 * Bytes of attention scores above which flash attention is used: on the CPU it takes more time for pictures of 378 x 378
 * (bench/idefics2.mjs), and it is less exact, but for 980 x 980 the scores would take 1.5 GB.
 */
const MAX_SCORES = 256 * 1024 * 1024;

/** @throws XpatchError MMPROJ_INVALID, DEVICE_UNKNOWN, NATIVE_FAILURE. */
export async function openIdefics2(
  info: NativeModelInfo,
  path: string,
  { hash, device, threads }: EncoderOptions,
): Promise<ImageEncoder> {
  const invalid = (why: string) => new XpatchError('MMPROJ_INVALID', `'${path}' is not a usable mmproj: ${why}.`);
  const shape = readIdefics2Shape(readGgufHeader(path), invalid);
  if (shape.nEmbd !== info.nEmbdInput || info.positionsPerEmbedding !== 1) {
    throw invalid(`its rows have ${shape.nEmbd} numbers, the model's ${info.nEmbdInput}: it belongs to another model`);
  }
  if (shape.fakeToken >= info.nVocab) {
    throw invalid(`the model has no token ${shape.fakeToken} to put around pictures: it belongs to another model`);
  }
  const weights = await native().addon.weightsLoad({ path, device, threads });
  return new Idefics2Encoder(weights, `idefics2:${hash}`, shape);
}

/**
 * Idefics2's picture encoder (Laurençon et al. 2024, https://arxiv.org/abs/2405.02246): a SigLIP that reads pictures of any
 * size, a projection, and a perceiver resampler that makes 64 rows of them. Pictures are not split into tiles, as in
 * "Task Vectors are Cross-Modal".
 */
class Idefics2Encoder implements ImageEncoder {
  readonly frame: Framing;

  constructor(
    private readonly handle: WeightsHandle,
    readonly id: string,
    private readonly shape: Idefics2Shape,
  ) {
    this.frame = { begin: shape.fakeToken, end: shape.fakeToken };
  }

  async encode(image: RgbImage): Promise<Segment[]> {
    const { patchSize, nRows, nHeads } = this.shape;
    const seen = await resizeBilinear(image, ...idefics2Size(image.width, image.height, this.shape));
    const { data, width, height } = seen;
    const patches = Math.floor(width / patchSize) * Math.floor(height / patchSize);
    const flash = patches ** 2 * nHeads * 4 > MAX_SCORES;
    let embeddings: Float32Array;
    try {
      embeddings = await native().addon.idefics2Encode(this.handle, data, width, height, flash);
    } catch (error) {
      throw nativeError(error, 'The picture cannot be encoded');
    }
    return [causalRows(embeddings, { id: this.id, projector: 'idefics2', image, seen, patchSize, nRows })];
  }

  async layout(): Promise<Segment[]> {
    return [blankRows(this.shape.nRows)];
  }

  dispose(): Promise<void> {
    return native().addon.weightsDispose(this.handle);
  }
}

/**
 * Width and height to which a picture is scaled, as transformers' get_resize_output_image_size for Idefics2: the longest edge is
 * reduced to its bound with the aspect kept; then each edge is raised to the other bound by itself, which may change the aspect.
 */
export function idefics2Size(
  width: number,
  height: number,
  { shortestEdge, longestEdge }: Pick<Idefics2Shape, 'shortestEdge' | 'longestEdge'>,
): [width: number, height: number] {
  const aspect = width / height;
  if (width >= height && width > longestEdge) {
    [width, height] = [longestEdge, Math.trunc(longestEdge / aspect)];
  } else if (height > width && height > longestEdge) {
    [width, height] = [Math.trunc(longestEdge * aspect), longestEdge];
  }
  return [Math.max(width, shortestEdge), Math.max(height, shortestEdge)];
}
