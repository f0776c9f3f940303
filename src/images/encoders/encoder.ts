import type { Framing } from '../../prompt/framing.js';
import type { Segment } from '../../prompt/prompt.js';
import type { RgbImage } from '../../prompt/types.js';
import { patchGrid } from '../patch-grid.js';

export interface EncoderOptions {
  /** The projector's type as `checkProjectorFile` read it. */
  projector: string;
  /** SHA-256 of the mmproj file, hex. */
  hash: string;
  device: string;
  threads: number;
}

/** States of a picture, or of a tile of one, after blocks of its encoder: [layers, patches, width]. */
export interface VisionStates {
  /** 0-based blocks of the encoder. */
  readonly layers: readonly number[];
  /** Patches, and a class token where the encoder has one, in the encoder's order. */
  readonly nRows: number;
  readonly width: number;
  readonly data: Float32Array;
}

/** Turns a picture into prompt segments: rows of embeddings, and the tokens that a model wants around them. */
export interface ImageEncoder {
  /** Identifies the encoder and its settings in cache keys. */
  readonly id: string;
  /** What is put around pictures in a prompt. Absent when that is nothing, or `encode` gives it. */
  readonly frame?: Framing;
  /** @throws XpatchError IMAGE_INVALID, IMAGE_UNSUPPORTED, NOT_FINITE, NATIVE_FAILURE. */
  encode(image: RgbImage): Promise<Segment[]>;
  /**
   * How a picture of this size is laid out in a prompt: as `encode` gives it, without computing what is in it (see `blankRows`).
   *
   * @throws XpatchError IMAGE_INVALID, IMAGE_UNSUPPORTED.
   */
  layout(width: number, height: number): Promise<Segment[]>;
  /** Blocks of the encoder, and numbers of a state after each; absent where they cannot be read. */
  readonly tower?: { readonly blocks: number; readonly width: number };
  /** States after some blocks, of those that the graph has: a LLaVA leaves out the last one. */
  states?(image: RgbImage, layers: readonly number[]): Promise<VisionStates[]>;
  dispose(): Promise<void>;
}

/** A segment of a picture that was not encoded. */
export function blankRows(
  nRows: number,
  more: Partial<Extract<Segment, { kind: 'image' }>> = {},
): Extract<Segment, { kind: 'image' }> {
  return {
    kind: 'image',
    key: '',
    embeddings: new Float32Array(0),
    nRows,
    nPositions: nRows,
    nonCausal: false,
    positions: new Int32Array(0),
    seen: { data: new Uint8Array(0), width: 0, height: 0, hash: '' },
    grid: { reason: 'The picture was not encoded.' },
    ...more,
  };
}

/** The segment of an encoder of our own: its rows in the order of the text, one a position, each seeing those before it. */
export function causalRows(
  embeddings: Float32Array,
  {
    id,
    projector,
    image,
    seen,
    patchSize,
    nRows,
  }: {
    id: string;
    projector: string;
    image: RgbImage;
    /** The picture as the encoder took it. */
    seen: RgbImage;
    patchSize: number;
    nRows: number;
  },
): Segment {
  const { width, height } = seen;
  return {
    kind: 'image',
    key: `${id}:${image.hash}`,
    embeddings,
    nRows,
    nPositions: nRows,
    nonCausal: false,
    positions: new Int32Array(0),
    seen,
    grid: patchGrid({ projector, patchSize, merge: 1, nRows, width, height }),
  };
}
