import { ggufNumber, readGgufHeader } from '../../gguf/gguf.js';
import type { ModelHandle, NativeImageChunk, NativeModelInfo, VisionHandle } from '../../native/addon.js';
import { native, nativeError } from '../../native/index.js';
import type { Segment } from '../../prompt/prompt.js';
import type { RgbImage } from '../../prompt/types.js';
import { XpatchError } from '../../util/errors.js';
import { rgbImage } from '../image.js';
import { patchGrid } from '../patch-grid.js';
import { blankRows, type EncoderOptions, type ImageEncoder, type VisionStates } from './encoder.js';

/** Encoders that scale every picture to one square, or to whole squares: they take any shape. */
const ANY_SHAPE = ['mlp', 'ldp', 'ldpv2', 'gemma3', 'internvl'];
/** As transformers bounds Qwen2-VL's (`smart_resize`). */
const MAX_ASPECT = 200;

export async function openMtmd(
  { handle, info }: { handle: ModelHandle; info: NativeModelInfo },
  path: string,
  { projector, hash, device, threads }: EncoderOptions,
): Promise<ImageEncoder> {
  const { addon, build } = native();
  const vision = await addon.visionCreate(handle, { path, device, threads });
  const header = readGgufHeader(path);
  const number = (key: string) => ggufNumber(header, `clip.vision.${key}`) ?? 0;
  const tower = { blocks: number('block_count'), width: number('embedding_length') };
  const aspect = maxAspect(projector, number('preproc_image_size'));
  const id = `mtmd:${build.llamaTag}:${hash}:${projector}`; // llama.cpp's code scales and cuts the pictures
  return new MtmdEncoder(vision, id, info.positionsPerEmbedding, aspect, tower);
}

/**
 * How many times as long as narrow a picture may be. The others keep its shape: where that leaves an edge of 0, mtmd ends the
 * process, and of a long line of patches it computes for hours.
 */
function maxAspect(projector: string, longestEdge: number): number {
  if (ANY_SHAPE.includes(projector)) return Number.POSITIVE_INFINITY;
  return projector === 'idefics3' ? Math.min(MAX_ASPECT, longestEdge || MAX_ASPECT) : MAX_ASPECT;
}

/** The encoders of llama.cpp's mtmd, from an mmproj GGUF. */
class MtmdEncoder implements ImageEncoder {
  constructor(
    private readonly handle: VisionHandle,
    readonly id: string,
    private readonly positionsPerEmbedding: number,
    private readonly maxAspect: number,
    readonly tower: NonNullable<ImageEncoder['tower']>,
  ) {}

  async encode(image: RgbImage): Promise<Segment[]> {
    const chunks = await this.chunksOf(image.data, image);
    return chunks.map((chunk, i) => {
      if (chunk.tokens.length) return { kind: 'tokens', tokens: chunk.tokens };
      const { seen, seenWidth: width, seenHeight: height, projector, patchSize, merge } = chunk;
      const { embeddings, nRows, nPositions, nonCausal, positions } = chunk;
      return {
        kind: 'image',
        key: `${this.id}:${image.hash}:${i}`,
        embeddings,
        nRows,
        nPositions,
        nonCausal,
        positions,
        seen: rgbImage(seen, width, height),
        grid: patchGrid({ projector, patchSize, merge, nRows, width, height }),
      };
    });
  }

  async layout(width: number, height: number): Promise<Segment[]> {
    const chunks = await this.chunksOf(new Uint8Array(width * height * 3), { width, height }, { layoutOnly: true });
    return chunks.map(({ tokens, nRows, nPositions, nonCausal, positions }, i) =>
      tokens.length
        ? { kind: 'tokens', tokens }
        : blankRows(nRows, { key: String(i), nPositions, nonCausal, positions }),
    );
  }

  async states(image: RgbImage, blocks: readonly number[]): Promise<VisionStates[]> {
    const chunks = await this.chunksOf(image.data, image, { blocks });
    return chunks.flatMap(({ tokens, states, stateWidth: width }) => {
      const layers = blocks.filter((block) => states[block] !== undefined);
      const size = states[layers[0] ?? -1]?.length ?? 0;
      if (tokens.length > 0 || size === 0) return [];
      const data = new Float32Array(layers.length * size);
      for (const [i, layer] of layers.entries()) data.set(states[layer] as Float32Array, i * size);
      return [{ layers, nRows: size / width, width, data }];
    });
  }

  private async chunksOf(
    data: Uint8Array,
    { width, height }: { width: number; height: number },
    { layoutOnly = false, blocks = [] }: { layoutOnly?: boolean; blocks?: readonly number[] } = {},
  ): Promise<NativeImageChunk[]> {
    if (Math.max(width, height) > this.maxAspect * Math.min(width, height)) {
      throw new XpatchError(
        'IMAGE_INVALID',
        `A picture of ${width} x ${height} pixels is too narrow: this encoder takes up to ${this.maxAspect} times as long as wide. Crop it.`,
      );
    }
    let chunks: NativeImageChunk[];
    try {
      chunks = await native().addon.visionEncode(this.handle, data, width, height, layoutOnly, Int32Array.from(blocks));
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
