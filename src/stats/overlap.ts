import { Random } from '../util/random.js';
import { mean, standardDeviation, Z } from './statistics.js';

/** Values of the same things, measured several times: [measurements][things]. */
export type Measurements = readonly (readonly number[])[];

/** Measurements of one side, and what they were taken on. */
export interface Measured {
  readonly values: Measurements;
  /** The item of each measurement. */
  readonly items: readonly string[];
  /** Tasks of one domain have the same items, so these are drawn together. */
  readonly domain: string;
}

/** How many of the best things of two sets of measurements are the same. */
export interface Overlap {
  /** In the mean over pairs. */
  readonly value: number;
  /**
   * The value plus and minus 1.96 bootstrap standard errors, within 0 and `top`. Resampled are the items of each domain: one comes or
   * goes with all its measurements. Percentiles would lie too low: resampled means are noisier than the means themselves, so that
   * their best things are less alike.
   */
  readonly low: number;
  readonly high: number;
  /** Of things in any order: `top` times the share of the top. */
  readonly chance: number;
  /** Share of random orders of the things of one side, the same order in all pairs, that overlap as much. */
  readonly p: number;
}

const DRAWS = 2000;

/**
 * The overlap of the `top` things with the largest means, of pairs of measurements of as many things, such as the effects of heads on
 * prompts of one kind and of another.
 */
export function topOverlap(pairs: readonly (readonly [Measured, Measured])[], top: number, seed = 1): Overlap {
  const things = pairs[0]?.[0].values[0]?.length ?? 0;
  const best = pairs.map(([a, b]) => [bestOf(a.values, top), bestOf(b.values, top)] as const);
  const domains = new Map<string, Set<string>>();
  for (const { domain, items } of pairs.flat()) {
    domains.set(domain, new Set([...(domains.get(domain) ?? []), ...items]));
  }
  const value = mean(best.map(([a, b]) => common(a, b)));
  const random = new Random(seed, 'overlap');
  const drawn = Array.from({ length: DRAWS }, () => {
    const items = new Map(
      [...domains].map(([domain, all]) => {
        const list = [...all];
        return [domain, list.map(() => list[random.integer(list.length)] as string)];
      }),
    );
    const bestDrawn = (side: Measured) => {
      const chosen = (items.get(side.domain) ?? []).map((item) => side.items.indexOf(item)).filter((i) => i >= 0);
      return bestOf(side.values, top, chosen);
    };
    return mean(pairs.map(([a, b]) => common(bestDrawn(a), bestDrawn(b))));
  });
  const half = Z * standardDeviation(drawn);
  const all = Array.from({ length: things }, (_, i) => i);
  // One order for all pairs: their sides have much the same best things, so that by chance too they overlap together.
  const shuffled = Array.from({ length: DRAWS }, () => {
    const order = random.sample(all);
    return mean(best.map(([a, b]) => common(a, new Set([...b].map((thing) => order[thing] as number)))));
  });
  return {
    value,
    low: Math.max(0, value - half),
    high: Math.min(top, value + half),
    chance: (top * top) / things,
    p: (1 + shuffled.filter((one) => one >= value).length) / (1 + DRAWS),
  };
}

/** The things with the largest sums over some measurements; of those that tie the first. */
function bestOf(measured: Measurements, top: number, chosen: readonly number[] = [...measured.keys()]): Set<number> {
  const sums = (measured[0] ?? []).map((_, thing) =>
    chosen.reduce((sum, one) => sum + (measured[one]?.[thing] as number), 0),
  );
  const order = [...sums.keys()].sort((a, b) => (sums[b] as number) - (sums[a] as number) || a - b);
  return new Set(order.slice(0, top));
}

function common(a: ReadonlySet<number>, b: ReadonlySet<number>): number {
  return [...a].filter((thing) => b.has(thing)).length;
}
