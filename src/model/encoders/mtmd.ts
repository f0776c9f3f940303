import { XpatchError } from '../../errors.js';
import type { ModelHandle, NativeImageChunk, NativeModelInfo, VisionHandle } from '../../native/addon.js';
import { native, nativeError } from '../../native/index.js';
import { type RgbImage, rgbImage } from '../image.js';
import { patchGrid } from '../patch-grid.js';
import type { Segment } from '../prompt.js';
import type { ImageEncoder } from './encoder.js';
import type { EncoderOptions } from './index.js';

export async function openMtmd(
  { handle, info }: { handle: ModelHandle; info: NativeModelInfo },
  path: string,
  { projector, hash, device, threads }: EncoderOptions,
): Promise<ImageEncoder> {
  const vision = await native().addon.visionCreate(handle, { path, device, threads });
  return new MtmdEncoder(vision, `mtmd:${hash}:${projector}`, info.positionsPerEmbedding);
}

/** The encoders of llama.cpp's mtmd, from an mmproj GGUF. */
class MtmdEncoder implements ImageEncoder {
  constructor(
    private readonly handle: VisionHandle,
    readonly id: string,
    private readonly positionsPerEmbedding: number,
  ) {}

  async encode(image: RgbImage): Promise<Segment[]> {
    let chunks: NativeImageChunk[];
    try {
      chunks = await native().addon.visionEncode(this.handle, image.data, image.width, image.height);
    } catch (error) {
      throw nativeError(error, 'The picture cannot be encoded');
    }
    return chunks.map((chunk, i) => {
      if (chunk.tokens.length) return { kind: 'tokens', tokens: chunk.tokens };
      if (this.positionsPerEmbedding !== (chunk.positions.length / chunk.nRows || 1)) {
        throw new XpatchError(
          'IMAGE_UNSUPPORTED',
          'The position layout of this projector is not supported by the runtime.',
        );
      }
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

  dispose(): Promise<void> {
    return native().addon.visionDispose(this.handle);
  }
}
