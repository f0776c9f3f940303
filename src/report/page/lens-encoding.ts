// How a lens is written into a page, shared by the writer (Node) and the reader (the page).
//
// A lens is a head and one chunk for each rank of its top-k, so that a page can take as many ranks as it has room for. A
// chunk is deflated and then base64: the length of a JSON part (32 bits), the JSON, and planes of bytes. Numbers of 12 to 24
// bits are split into planes, low bytes first, because the high bytes repeat. Cells go position by position, lowest layer
// first.

export interface EncodedLens {
  readonly head: string;
  readonly ranks: readonly string[];
}

/** The JSON of the head. Its planes: entropy (2), KL (2), then probability (2) and rank (3) of every tracked token. */
export interface LensHead {
  /** Ascending. */
  readonly layers: readonly number[];
  readonly positions: readonly number[];
  /** Index into `layers` for each position. */
  readonly settled: readonly number[];
  /** Index into `texts` for each position, -1 for a row of a picture. */
  readonly inputs: readonly number[];
  readonly texts: readonly string[];
  readonly tracked: readonly { readonly token: number; readonly text: string }[];
  /** How many of them are listed beside every state. */
  readonly listed: number;
  readonly maxEntropy: number;
  readonly maxKl: number;
}

/** The JSON of a rank: tokens that no earlier rank has. Its planes: index of the token (3), probability (2). */
export interface LensRank {
  readonly tokens: readonly number[];
  readonly texts: readonly string[];
}

/** How a probability becomes a whole number: by its logarithm, down to e^-range; less than that is 0. */
interface ProbabilityScale {
  readonly range: number;
  readonly full: number;
}
/** For the best tokens, in 14 bits: off by at most 0.08 % of the probability. */
export const BEST: ProbabilityScale = { range: 24, full: 0x3fff };
/** For tracked tokens, which may be far from the best, in 16 bits: off by at most 0.08 % too. */
export const TRACKED: ProbabilityScale = { range: 96, full: 0xffff };

export const packProbability = (p: number, { range, full }: ProbabilityScale): number =>
  p > 0 ? Math.min(full, Math.round((-Math.log(Math.min(1, p)) / range) * (full - 1))) : full;
export const unpackProbability = (q: number, { range, full }: ProbabilityScale): number =>
  q === full ? 0 : Math.exp((-q / (full - 1)) * range);

const STEPS = 0xfff;

/** A number from 0 to `max` in 12 bits. */
export const packLinear = (x: number, max: number): number =>
  max > 0 ? Math.round((Math.min(max, Math.max(0, x)) / max) * STEPS) : 0;
export const unpackLinear = (q: number, max: number): number => (q / STEPS) * max;

/** Planes of the low, the next, ... byte of each number. */
export function toPlanes(numbers: Uint32Array, bytes: number): Uint8Array {
  const out = new Uint8Array(numbers.length * bytes);
  for (let plane = 0; plane < bytes; plane++) {
    const at = plane * numbers.length;
    for (let i = 0; i < numbers.length; i++) out[at + i] = ((numbers[i] as number) >>> (8 * plane)) & 0xff;
  }
  return out;
}

/** The reverse of `toPlanes`, from `offset` on. */
export function fromPlanes(planes: Uint8Array, offset: number, count: number, bytes: number): Uint32Array {
  const out = new Uint32Array(count);
  for (let plane = 0; plane < bytes; plane++) {
    const at = offset + plane * count;
    for (let i = 0; i < count; i++) out[i] = (out[i] as number) | ((planes[at + i] as number) << (8 * plane));
  }
  return out;
}
