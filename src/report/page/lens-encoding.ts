// How a lens is written into a page, shared by the writer (Node) and the reader (the page).

/**
 * A lens is a head and one part for each rank of its top-k, so that a page can take as many ranks as it has room for. Each is
 * JSON, compressed with gzip, in base64. Lists of numbers go position by position, lowest layer first; probabilities have three
 * significant digits, entropies and divergences (nats) three decimals.
 */
export interface EncodedLens {
  readonly head: string;
  readonly ranks: readonly string[];
}

export interface LensHead {
  /** Ascending. */
  readonly layers: readonly number[];
  readonly positions: readonly number[];
  /** Index into `layers` for each position. */
  readonly settled: readonly number[];
  /** For each position, null for a row of a picture. */
  readonly inputs: readonly (string | null)[];
  readonly entropy: readonly number[];
  readonly kl: readonly number[];
  readonly tracked: readonly {
    readonly token: number;
    readonly text: string;
    readonly probability: readonly number[];
    readonly rank: readonly number[];
  }[];
  /** How many of them are listed beside every state. */
  readonly listed: number;
}

export interface LensRank {
  readonly token: readonly number[];
  readonly probability: readonly number[];
  /** Of the tokens that no earlier rank has. */
  readonly texts: Readonly<Record<number, string>>;
}
