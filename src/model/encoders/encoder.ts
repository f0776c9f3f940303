import type { RgbImage } from '../image.js';
import type { Segment } from '../prompt.js';

/** Turns a picture into prompt segments: rows of embeddings, and the tokens that a model wants around them. */
export interface ImageEncoder {
  /** Identifies the encoder and its settings in cache keys. */
  readonly id: string;
  /**
   * Tokens that the prompt builder puts around every picture; where both are the same token, pictures next to each other
   * share one. Absent when there are none, or `encode` gives them.
   */
  readonly frame?: { begin: number; end: number };
  /** @throws XpatchError IMAGE_INVALID, IMAGE_UNSUPPORTED, NOT_FINITE, NATIVE_FAILURE. */
  encode(image: RgbImage): Promise<Segment[]>;
  dispose(): Promise<void>;
}
