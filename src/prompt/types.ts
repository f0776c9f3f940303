/**
 * A picture: a path, a `data:` or `file:` URL, an encoded file (PNG, JPEG, WebP, GIF, AVIF, TIFF or SVG), or raw 8-bit RGB
 * (width * height * 3 bytes, row by row).
 */
export type ImageSource =
  | string
  | URL
  | Uint8Array
  | ArrayBuffer
  | Blob
  | { data: Uint8Array | Uint8ClampedArray; width: number; height: number };

/** 8-bit RGB, row by row: what an encoder gets. */
export interface RgbImage {
  data: Uint8Array;
  width: number;
  height: number;
  /** SHA-256 of size and pixels, hex. */
  hash: string;
}

/** A part of a text; in a literal what looks like a control token (`<s>`, `<|im_end|>`) is only text. */
export type TextPart = string | { literal: string };

/**
 * A part of a prompt: text, or a literal; token ids as they are; a picture; or a mark, which names the token that ends at its
 * place, e.g. `delimiter` right after `A:`.
 */
export type PromptPart = TextPart | { tokens: ArrayLike<number> } | { image: ImageSource } | { mark: string };

/** A position in the expanded prompt (pictures count as many positions as they have rows): an index, negative from the end; a mark's name; or `'last'`. */
export type PositionRef = number | string;

/** Positions one after the other, both ends included. */
export interface PositionRange {
  readonly from: PositionRef;
  readonly to: PositionRef;
}

/** The tokens of a text that the prompt has, such as all those of a name, or the `A:` of a question. */
export interface TextPositions {
  readonly text: string;
  /** Which one, from 1; negative from the end. Defaults to -1, the last one. */
  readonly occurrence?: number | undefined;
}

/** The rows of a picture: of the n-th one in the prompt, from 1; negative from the end; or of all. */
export interface PicturePositions {
  readonly picture: number | 'all';
}

/** Positions of one kind. */
export type Place = PositionRef | PositionRange | TextPositions | PicturePositions;

/** Positions of a capture, of logits or of an intervention: `'all'`, one, a range, those of a text or a picture, or a list of these. */
export type PositionSelection = Place | readonly Place[];

/** A rectangle of the picture that the model saw (after its preprocessing), in that picture's pixels. */
export interface PatchRectangle {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** For each row of a picture the rectangle that it stands for, undefined for a separator row; or why the rows have none. */
export type PatchGrid = readonly (PatchRectangle | undefined)[] | { readonly reason: string };
