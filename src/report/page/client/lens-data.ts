import {
  BEST,
  type EncodedLens,
  fromPlanes,
  type LensHead,
  type LensRank,
  TRACKED,
  unpackLinear,
  unpackProbability,
} from '../lens-encoding.js';

/** Indices into the layers and positions of a lens. */
export interface Cell {
  readonly l: number;
  readonly p: number;
}

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
  private readonly texts = new Map<number, string>();

  private constructor(
    readonly head: LensHead,
    private readonly planes: { entropy: Uint32Array; kl: Uint32Array },
    private readonly trackedPlanes: readonly { probability: Uint32Array; rank: Uint32Array }[],
    private readonly ranks: readonly { index: Uint32Array; probability: Uint32Array }[],
    private readonly vocabulary: readonly number[],
    vocabularyTexts: readonly string[],
  ) {
    vocabulary.forEach((token, i) => {
      this.texts.set(token, vocabularyTexts[i] as string);
    });
  }

  static async decode(encoded: EncodedLens): Promise<LensData> {
    const { json: head, planes } = await unpack<LensHead>(encoded.head);
    const count = head.layers.length * head.positions.length;
    let offset = 0;
    const next = (from: Uint8Array, bytes: number) => {
      offset += bytes * count;
      return fromPlanes(from, offset - bytes * count, count, bytes);
    };
    const base = { entropy: next(planes, 2), kl: next(planes, 2) };
    const tracked = head.tracked.map(() => ({ probability: next(planes, 2), rank: next(planes, 3) }));
    const vocabulary: number[] = [];
    const texts: string[] = [];
    const ranks = [];
    for (const rank of encoded.ranks) {
      const part = await unpack<LensRank>(rank);
      vocabulary.push(...part.json.tokens);
      texts.push(...part.json.texts);
      offset = 0;
      ranks.push({ index: next(part.planes, 3), probability: next(part.planes, 2) });
    }
    return new LensData(head, base, tracked, ranks, vocabulary, texts);
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
    const i = p * this.nLayers + l;
    return this.head.tracked.map(({ token, text }, t) => {
      const plane = this.trackedPlanes[t] as (typeof this.trackedPlanes)[number];
      const probability = unpackProbability(plane.probability[i] as number, TRACKED);
      return { token, text, probability, rank: plane.rank[i] as number };
    });
  }

  /** Where a token stands; undefined where it is neither among the best nor tracked. */
  find(l: number, p: number, token: number): Score | undefined {
    return [...this.top(l, p), ...this.tracked(l, p)].find((score) => score.token === token);
  }

  entropy(l: number, p: number): number {
    return unpackLinear(this.planes.entropy[p * this.nLayers + l] as number, this.head.maxEntropy);
  }

  kl(l: number, p: number): number {
    return unpackLinear(this.planes.kl[p * this.nLayers + l] as number, this.head.maxKl);
  }

  /** What a metric is at its fullest colour. */
  maximum(metric: Metric): number {
    return { probability: 1, entropy: this.head.maxEntropy, kl: this.head.maxKl }[metric];
  }

  /** A metric from 0 to 1, as it is coloured. */
  share(metric: Metric, l: number, p: number): number {
    const value = metric === 'probability' ? this.best(l, p).probability : this[metric](l, p);
    return value / (this.maximum(metric) || 1);
  }

  private score(l: number, p: number, r: number): Score {
    const rank = this.ranks[r] as (typeof this.ranks)[number];
    const i = p * this.nLayers + l;
    const token = this.vocabulary[rank.index[i] as number] as number;
    const probability = unpackProbability(rank.probability[i] as number, BEST);
    return { token, text: this.texts.get(token) as string, probability, rank: r };
  }
}

async function unpack<T>(base64: string): Promise<{ json: T; planes: Uint8Array }> {
  const packed = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const length = new DataView(bytes.buffer).getUint32(0, true);
  const json = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length))) as T;
  return { json, planes: bytes.subarray(4 + length) };
}
