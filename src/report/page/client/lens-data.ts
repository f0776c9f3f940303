import type { EncodedLens, LensHead, LensRank } from '../lens-encoding.js';

export const METRICS = ['probability', 'entropy', 'kl'] as const;
export type Metric = (typeof METRICS)[number];

/** A token in a cell; `rank` 0 is the best. */
export interface Score {
  readonly token: number;
  readonly text: string;
  readonly probability: number;
  readonly rank: number;
}

/** The numbers of a lens. `l` and `p` are indices into `head.layers` and `head.positions`. */
export class LensData {
  private readonly texts: Readonly<Record<number, string>>;
  private readonly most: Readonly<Record<Metric, number>>;

  private constructor(
    readonly head: LensHead,
    private readonly ranks: readonly LensRank[],
  ) {
    const greatest = (numbers: readonly number[]) => numbers.reduce((a, b) => Math.max(a, b), 0);
    this.texts = Object.assign({}, ...ranks.map(({ texts }) => texts));
    this.most = { probability: 1, entropy: greatest(head.entropy), kl: greatest(head.kl) };
  }

  static async decode({ head, ranks }: EncodedLens): Promise<LensData> {
    return new LensData(await unpack<LensHead>(head), await Promise.all(ranks.map((rank) => unpack<LensRank>(rank))));
  }

  get nLayers(): number {
    return this.head.layers.length;
  }

  get nPositions(): number {
    return this.head.positions.length;
  }

  /** How many of the best tokens the page holds. */
  get nRanks(): number {
    return this.ranks.length;
  }

  best(l: number, p: number): Score {
    return this.score(l, p, 0);
  }

  top(l: number, p: number): Score[] {
    return this.ranks.map((_, r) => this.score(l, p, r));
  }

  /** The tracked tokens. */
  tracked(l: number, p: number): Score[] {
    return this.head.tracked.map(({ token, text, probability, rank }) => {
      return { token, text, probability: this.at(probability, l, p), rank: this.at(rank, l, p) };
    });
  }

  /** A token among those at a place; undefined where it is neither among the best nor tracked. */
  find(l: number, p: number, token: number): Score | undefined {
    return [...this.top(l, p), ...this.tracked(l, p)].find((score) => score.token === token);
  }

  entropy(l: number, p: number): number {
    return this.at(this.head.entropy, l, p);
  }

  kl(l: number, p: number): number {
    return this.at(this.head.kl, l, p);
  }

  /** What a metric is at its fullest colour. */
  maximum(metric: Metric): number {
    return this.most[metric];
  }

  /** A metric from 0 to 1, as it is coloured. */
  share(metric: Metric, l: number, p: number): number {
    const value = metric === 'probability' ? this.best(l, p).probability : this[metric](l, p);
    return value / (this.maximum(metric) || 1);
  }

  private score(l: number, p: number, r: number): Score {
    const { token: tokens, probability } = this.ranks[r] as LensRank;
    const token = this.at(tokens, l, p);
    return { token, text: this.texts[token] as string, probability: this.at(probability, l, p), rank: r };
  }

  private at(numbers: readonly number[], l: number, p: number): number {
    return numbers[p * this.nLayers + l] as number;
  }
}

/** A part of a page's data: JSON, gzip, base64. */
export async function unpack<T>(base64: string): Promise<T> {
  const packed = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
  return (await new Response(stream).json()) as T;
}
