import { XpatchError } from '../errors.js';
import type { NativeImageChunk, VisionHandle } from '../native/addon.js';
import { native, nativeError } from '../native/index.js';
import type { RgbImage } from './image.js';
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
      return { kind: 'image', key: `${this.id}:${image.hash}:${i}`, ...chunk };
    });
  }

  dispose(): Promise<void> {
    return native().addon.visionDispose(this.handle);
  }
}

/** Default bound of the memory cache, bytes. */
export const DEFAULT_IMAGE_CACHE_BYTES = 256 * 1024 * 1024;

/**
 * Encodes every distinct picture once. The least recently used ones are dropped when the bound is exceeded; two
 * simultaneous requests for a picture share one encode.
 */
export class CachedImageEncoder implements ImageEncoder {
  readonly id: string;
  private readonly entries = new Map<string, Promise<Segment[]>>();
  private readonly sizes = new Map<string, number>();
  private bytes = 0;
  /** How many pictures were really encoded. */
  encodes = 0;

  constructor(
    private readonly inner: ImageEncoder,
    private readonly maxBytes: number = DEFAULT_IMAGE_CACHE_BYTES,
  ) {
    this.id = inner.id;
  }

  encode(image: RgbImage): Promise<Segment[]> {
    const known = this.entries.get(image.hash);
    if (known) {
      this.entries.delete(image.hash); // to the end of the order: most recently used
      this.entries.set(image.hash, known);
      return known;
    }
    this.encodes++;
    const encoding = this.inner.encode(image);
    this.entries.set(image.hash, encoding);
    encoding.then(
      (segments) => this.keep(image.hash, segments),
      () => this.entries.delete(image.hash),
    );
    return encoding;
  }

  private keep(hash: string, segments: Segment[]): void {
    const size = segments.reduce((n, s) => n + (s.kind === 'image' ? s.embeddings.byteLength : s.tokens.byteLength), 0);
    this.sizes.set(hash, size);
    this.bytes += size;
    for (const oldest of this.entries.keys()) {
      if (this.bytes <= this.maxBytes) break;
      this.bytes -= this.sizes.get(oldest) ?? 0;
      this.sizes.delete(oldest);
      this.entries.delete(oldest);
    }
  }

  async dispose(): Promise<void> {
    this.entries.clear();
    this.sizes.clear();
    this.bytes = 0;
    await this.inner.dispose();
  }
}
