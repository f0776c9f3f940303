import { Random } from '../util/random.js';
import { mean } from './statistics.js';

/** Values of the same things, measured several times: [measurements][things]. */
export type Measurements = readonly (readonly number[])[];

/** How many of the best things of two sets of measurements are the same. */
export interface Overlap {
  /** In the mean over pairs. */
  readonly value: number;
  /** 95 % bootstrap interval over the measurements, those of the same number of both sides drawn together. */
  readonly low: number;
  readonly high: number;
  /** Of things in any order: `top` times the share of the top. */
  readonly chance: number;
  /** Share of random orders of one side that overlap as much. */
  readonly p: number;
}

const DRAWS = 2000;

/**
 * The overlap of the `top` things with the largest means, of pairs of measurements of as many things, such as the effects of heads on
 * prompts of one kind and of another.
 */
export function topOverlap(pairs: readonly (readonly [Measurements, Measurements])[], top: number, seed = 1): Overlap {
  const things = pairs[0]?.[0][0]?.length ?? 0;
  const best = pairs.map(([a, b]) => [bestOf(a, top), bestOf(b, top)] as const);
  const value = mean(best.map(([a, b]) => common(a, b)));
  const random = new Random(seed, 'overlap');
  const drawn = Array.from({ length: DRAWS }, () =>
    mean(
      pairs.map(([a, b]) => {
        const n = Math.min(a.length, b.length);
        const chosen = Array.from({ length: n }, () => Math.floor(random.uniform() * n));
        return common(bestOf(a, top, chosen), bestOf(b, top, chosen));
      }),
    ),
  ).sort((x, y) => x - y);
  const all = Array.from({ length: things }, (_, i) => i);
  const shuffled = Array.from({ length: DRAWS }, () =>
    mean(best.map(([a]) => common(a, new Set(random.sample(all, a.size))))),
  );
  return {
    value,
    low: drawn[Math.floor(0.025 * DRAWS)] as number,
    high: drawn[Math.ceil(0.975 * DRAWS) - 1] as number,
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
