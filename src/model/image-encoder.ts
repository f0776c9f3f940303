import { XpatchError } from '../errors.js';
import type { NativeImageChunk, VisionHandle } from '../native/addon.js';
import { native, nativeError } from '../native/index.js';
import { type RgbImage, rgbImage } from './image.js';
import { patchGrid } from './patch-grid.js';
import type { Segment } from './prompt.js';

/** Turns a picture into prompt segments: rows of embeddings, and the tokens that a model wants around them. */
export interface ImageEncoder {
  /** Identifies the encoder and its settings in cache keys. */
  readonly id: string;
  encode(image: RgbImage): Promise<Segment[]>;
  dispose(): Promise<void>;
}

/** The encoders of llama.cpp's mtmd, from an mmproj GGUF. */
export class MtmdEncoder implements ImageEncoder {
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
