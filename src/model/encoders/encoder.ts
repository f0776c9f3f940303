import type { Framing } from '../framing.js';
import type { RgbImage } from '../image.js';
import type { Segment } from '../prompt.js';

/** Turns a picture into prompt segments: rows of embeddings, and the tokens that a model wants around them. */
export interface ImageEncoder {
  /** Identifies the encoder and its settings in cache keys. */
  readonly id: string;
  /** What stands around pictures in a prompt. Absent when that is nothing, or `encode` gives it. */
  readonly frame?: Framing;
  /** @throws XpatchError IMAGE_INVALID, IMAGE_UNSUPPORTED, NOT_FINITE, NATIVE_FAILURE. */
  encode(image: RgbImage): Promise<Segment[]>;
  dispose(): Promise<void>;
}
