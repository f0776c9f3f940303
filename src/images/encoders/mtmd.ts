import { ggufNumber, readGgufHeader } from '../../gguf/gguf.js';
import type { ModelHandle, NativeImageChunk, NativeModelInfo, VisionHandle } from '../../native/addon.js';
import { native, nativeError } from '../../native/index.js';
import type { Segment } from '../../prompt/prompt.js';
import type { RgbImage } from '../../prompt/types.js';
import { XpatchError } from '../../util/errors.js';
import { rgbImage } from '../image.js';
import { patchGrid } from '../patch-grid.js';
import { blankRows, type EncoderOptions, type ImageEncoder } from './encoder.js';

/** Encoders that scale every picture to one square, or to whole squares: they take any shape. */
const ANY_SHAPE = ['mlp', 'ldp', 'ldpv2', 'gemma3', 'internvl'];
/** As transformers bounds Qwen2-VL's (`smart_resize`). */
const MAX_ASPECT = 200;

export async function openMtmd(
  { handle, info }: { handle: ModelHandle; info: NativeModelInfo },
  path: string,
  { projector, hash, device, threads }: EncoderOptions,
): Promise<ImageEncoder> {
  const vision = await native().addon.visionCreate(handle, { path, device, threads });
  return new MtmdEncoder(vision, `mtmd:${hash}:${projector}`, info.positionsPerEmbedding, maxAspect(projector, path));
}

/**
 * How many times as long as narrow a picture may be. The others keep its shape: where that leaves an edge of 0, mtmd ends the
 * process, and of a long line of patches it computes for hours.
 */
function maxAspect(projector: string, path: string): number {
  if (ANY_SHAPE.includes(projector)) return Number.POSITIVE_INFINITY;
  const longestEdge = ggufNumber(readGgufHeader(path), 'clip.vision.preproc_image_size');
  return projector === 'idefics3' ? Math.min(MAX_ASPECT, longestEdge ?? MAX_ASPECT) : MAX_ASPECT;
}

/** The encoders of llama.cpp's mtmd, from an mmproj GGUF. */
class MtmdEncoder implements ImageEncoder {
  constructor(
    private readonly handle: VisionHandle,
    readonly id: string,
    private readonly positionsPerEmbedding: number,
    private readonly maxAspect: number,
  ) {}

  async encode(image: RgbImage): Promise<Segment[]> {
    const chunks = await this.chunksOf(image.data, image, false);
    return chunks.map((chunk, i) => {
      if (chunk.tokens.length) return { kind: 'tokens', tokens: chunk.tokens };
      const { tokens, seen, seenWidth: width, seenHeight: height, projector, patchSize, merge, ...rows } = chunk;
      return {
        kind: 'image',
        key: `${this.id}:${image.hash}:${i}`,
        ...rows,
        seen: rgbImage(seen, width, height),
        grid: patchGrid({ projector, patchSize, merge, nRows: rows.nRows, width, height }),
      };
    });
  }

  async layout(width: number, height: number): Promise<Segment[]> {
    const chunks = await this.chunksOf(new Uint8Array(width * height * 3), { width, height }, true);
    return chunks.map(({ tokens, nRows, nPositions, nonCausal, positions }, i) =>
      tokens.length
        ? { kind: 'tokens', tokens }
        : blankRows(nRows, { key: String(i), nPositions, nonCausal, positions }),
    );
  }

  private async chunksOf(
    data: Uint8Array,
    { width, height }: { width: number; height: number },
    layoutOnly: boolean,
  ): Promise<NativeImageChunk[]> {
    if (Math.max(width, height) > this.maxAspect * Math.min(width, height)) {
      throw new XpatchError(
        'IMAGE_INVALID',
        `A picture of ${width} x ${height} pixels is too narrow: this encoder takes up to ${this.maxAspect} times as long as wide. Crop it.`,
      );
    }
    let chunks: NativeImageChunk[];
    try {
      chunks = await native().addon.visionEncode(this.handle, data, width, height, layoutOnly);
    } catch (error) {
      throw nativeError(error, 'The picture cannot be encoded');
    }
    const fits = ({ tokens, positions, nRows }: NativeImageChunk) =>
      tokens.length > 0 || this.positionsPerEmbedding === (positions.length / nRows || 1);
    if (chunks.every(fits)) return chunks;
    throw new XpatchError(
      'IMAGE_UNSUPPORTED',
      'The position layout of this projector is not supported by the runtime.',
    );
  }

  dispose(): Promise<void> {
    return native().addon.visionDispose(this.handle);
  }
}
