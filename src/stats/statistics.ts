import { XpatchError } from '../util/errors.js';
import { largest } from '../util/extremes.js';
import { Random } from '../util/random.js';

/** Closed interval; every interval here has a level of 95 %. */
export interface Interval {
  readonly low: number;
  readonly high: number;
}

/** One scored query of one condition. */
export interface Observation {
  readonly task: string;
  /** Tasks of one domain ask about the same items, so their scores go together. Defaults to the task. */
  readonly domain?: string;
  readonly seed: number;
  /** The input of the query. */
  readonly item: string;
  /** 1 for right and 0 for wrong, a probability, any other finite score, or a difference of two of them. */
  readonly value: number;
  /** Whether the score can only lie from 0 to 1. Then an interval has a width even where all items score alike. */
  readonly share?: boolean;
}

/** A value with its interval, and what it was computed from. */
export interface Estimate extends Interval {
  readonly value: number;
  /** Number of scored queries. */
  readonly n: number;
  /** Number of different items among them. */
  readonly items: number;
}

/** 97.5 % quantile of the standard normal distribution. */
export const Z = 1.959963984540054;
const RESAMPLES = 2000;

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Of a sample: over n - 1. */
export function standardDeviation(values: readonly number[]): number {
  const centre = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (values.length - 1));
}

/**
 * Score interval for a proportion (Wilson 1927; method 3 in Newcombe 1998).
 * @param successes from 0 to n
 */
export function wilsonInterval(successes: number, n: number): Interval {
  if (!Number.isSafeInteger(n) || n < 1 || !(successes >= 0 && successes <= n)) {
    const message = `${String(successes)} successes of ${String(n)} are not a proportion`;
    throw new XpatchError('INVALID_ARGUMENT', `${message}: give 0 to n successes of at least 1 trial.`);
  }
  const p = successes / n;
  const centre = (p + (Z * Z) / (2 * n)) / (1 + (Z * Z) / n);
  const half = (Z * Math.sqrt((p * (1 - p)) / n + (Z * Z) / (4 * n * n))) / (1 + (Z * Z) / n);
  // Rounding could leave 0 to 1, or p outside.
  return { low: Math.min(p, Math.max(0, centre - half)), high: Math.max(p, Math.min(1, centre + half)) };
}

/**
 * Mean over tasks of the mean over queries, with a bootstrap interval (Efron and Tibshirani 1993: percentiles of 2000
 * seeded resamples).
 *
 * Resampled are whole items within each domain: an item that was a test query under several seeds, or in several tasks of
 * its domain, comes or goes with all its scores, since these are not independent. The seeds are held fixed (three are too
 * few to resample; `spreadOverSeeds` shows how they differ), so the interval speaks of other items, not of other draws of
 * the vectors.
 *
 * Where all items score alike the bootstrap has no width. For shares (`Observation.share`), Wilson's interval with one trial an item is
 * used instead. Of other scores nobody knows how far they reach: their interval is the value alone.
 *
 * @param seed of the resampling. Defaults to 0
 * @throws {XpatchError} INVALID_ARGUMENT without observations
 */
export function bootstrapInterval(observations: readonly Observation[], seed = 0): Estimate {
  return estimate(observations, seed, observations.every(isShare) && ((p, n) => wilsonInterval(p * n, n)));
}

/**
 * The same for the difference of two conditions, first minus second, paired by task, seed and item. Where all items differ alike, those
 * of shares may differ otherwise in as large a share of items as Wilson's interval allows for none.
 * @throws {XpatchError} INVALID_ARGUMENT when a query of one condition is missing in the other
 */
export function differenceInterval(first: readonly Observation[], second: readonly Observation[], seed = 0): Estimate {
  const shares = first.every(isShare) && second.every(isShare);
  const around = (value: number, items: number) => {
    const { high: width } = wilsonInterval(0, items);
    return { low: Math.max(-1, value - width), high: Math.min(1, value + width) };
  };
  return estimate(pairedDifferences(first, second), seed, shares && around);
}

const isShare = ({ share, value }: Observation): boolean => share === true && value >= 0 && value <= 1;

/**
 * First minus second, paired by task, seed and item.
 * @throws {XpatchError} INVALID_ARGUMENT when a query of one condition is missing in the other
 */
export function pairedDifferences(first: readonly Observation[], second: readonly Observation[]): Observation[] {
  const key = (o: Observation) => JSON.stringify([o.task, o.seed, o.item]);
  const values = new Map(second.map((o) => [key(o), o.value]));
  const differences = first.map((o) => ({ ...o, value: o.value - (values.get(key(o)) ?? Number.NaN) }));
  const lonely = differences.find((o) => Number.isNaN(o.value));
  if (lonely !== undefined || values.size !== first.length) {
    const example = lonely === undefined ? '' : `, such as ${lonely.item} of ${lonely.task} under seed ${lonely.seed}`;
    const message = `Only queries that both conditions have can be compared; some are in only one of them${example}.`;
    throw new XpatchError('INVALID_ARGUMENT', `${message} Leave them out of both.`);
  }
  return differences;
}

/** How a score differs between seeds. */
export interface SeedSpread {
  readonly perSeed: readonly { readonly seed: number; readonly value: number }[];
  /** Sample standard deviation over the seeds; undefined for a single one. */
  readonly sd: number | undefined;
}

/** Mean over tasks of the mean over queries, for each seed by itself. */
export function spreadOverSeeds(observations: readonly Observation[]): SeedSpread {
  const seeds = [...new Set(observations.map((o) => o.seed))].sort((a, b) => a - b);
  const perSeed = seeds.map((seed) => {
    const { domains, tasks } = gather(observations.filter((o) => o.seed === seed));
    return { seed, value: meanOverTasks(domains, tasks) };
  });
  if (perSeed.length < 2) return { perSeed, sd: undefined };
  return { perSeed, sd: standardDeviation(perSeed.map(({ value }) => value)) };
}

/** The scores of one domain: for every item a row of sums and a row of counts, one number for each task of the domain. */
interface Domain {
  readonly items: number;
  /** Which of all tasks these are. */
  readonly tasks: readonly number[];
  readonly sums: Float64Array;
  readonly counts: Float64Array;
}

/** @param alike the interval where all items score alike, if it is known */
function estimate(
  observations: readonly Observation[],
  seed: number,
  alike: false | ((value: number, items: number) => Interval),
): Estimate {
  const { domains, tasks } = gather(observations);
  const value = meanOverTasks(domains, tasks);
  const items = domains.reduce((sum, domain) => sum + domain.items, 0);
  const equal = observations.every((o) => o.value === observations[0]?.value); // need no drawing, which takes milliseconds
  const bootstrap = equal ? { low: value, high: value } : resampled(value, domains, tasks, seed);
  const hasWidth = bootstrap.high - bootstrap.low > 1e-12 * largest(observations.map((o) => Math.abs(o.value)));
  return { value, n: observations.length, items, ...(alike && !hasWidth ? alike(value, items) : bootstrap) };
}

function resampled(value: number, domains: readonly Domain[], tasks: number, seed: number): Interval {
  const random = new Random(seed, 'bootstrap');
  const means = new Float64Array(RESAMPLES);
  for (let r = 0; r < RESAMPLES; r++) means[r] = meanOverTasks(domains, tasks, random);
  means.sort();
  // A resample can lack a task, and a sum in another order differs in its last bits: the value belongs to its interval all the same.
  return { low: Math.min(value, quantile(means, 0.025)), high: Math.max(value, quantile(means, 0.975)) };
}

/** Everything in sorted order, so that lines merged from several machines give what a single run gives. */
export function gather(observations: readonly Observation[]): { domains: Domain[]; tasks: number } {
  if (observations.length === 0) {
    throw new XpatchError('INVALID_ARGUMENT', 'There are no scored queries to average: run the condition first.');
  }
  const tasks = [...new Set(observations.map((o) => o.task))].sort();
  const names = [...new Set(observations.map((o) => o.domain ?? o.task))].sort();
  const domains = names.map((name) => {
    const own = observations.filter((o) => (o.domain ?? o.task) === name);
    const items = [...new Set(own.map((o) => o.item))].sort();
    const rows = new Map(items.map((item, row) => [item, row]));
    const ofDomain = tasks.filter((task) => own.some((o) => o.task === task));
    const sums = new Float64Array(items.length * ofDomain.length);
    const counts = new Float64Array(sums.length);
    for (const { item, task, value } of own) {
      const place = (rows.get(item) as number) * ofDomain.length + ofDomain.indexOf(task);
      sums[place] = (sums[place] as number) + value;
      counts[place] = (counts[place] as number) + 1;
    }
    return { items: items.length, tasks: ofDomain.map((task) => tasks.indexOf(task)), sums, counts };
  });
  return { domains, tasks: tasks.length };
}

/** Over all items once, or, given a generator, over as many items of each domain drawn with replacement. */
function meanOverTasks(domains: readonly Domain[], nTasks: number, random?: Random): number {
  const sums = new Array<number>(nTasks).fill(0); // thousands of these are made, and typed arrays are slow to make
  const counts = new Array<number>(nTasks).fill(0);
  for (const { items, tasks, sums: sumsOf, counts: countsOf } of domains) {
    for (let i = 0; i < items; i++) {
      let place = (random ? random.integer(items) : i) * tasks.length;
      for (const task of tasks) {
        sums[task] = (sums[task] as number) + (sumsOf[place] as number);
        counts[task] = (counts[task] as number) + (countsOf[place] as number);
        place++;
      }
    }
  }
  let [total, n] = [0, 0];
  for (const [task, count] of counts.entries()) {
    if (count === 0) continue; // a resample can miss a task that has few items of a larger domain
    total += (sums[task] as number) / count;
    n++;
  }
  return total / n;
}

/** Linear between order statistics (definition 7 of Hyndman and Fan 1996, the default of numpy and R). */
export function quantile(sorted: ArrayLike<number>, q: number): number {
  const place = q * (sorted.length - 1);
  const below = sorted[Math.floor(place)] as number;
  const above = sorted[Math.ceil(place)] as number;
  return below + (above - below) * (place - Math.floor(place));
}
