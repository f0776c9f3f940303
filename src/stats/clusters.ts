import { XpatchError } from '../util/errors.js';
import { Pace } from '../util/pace.js';
import { Random } from '../util/random.js';
import { bootstrapInterval, type Estimate, type Observation } from './statistics.js';

/** Euclidean distances between n points: `data[i * n + j]`. */
export interface Distances {
  readonly n: number;
  readonly data: Float64Array;
}

/**
 * Euclidean distances between all points.
 *
 * @throws {XpatchError} INVALID_ARGUMENT for fewer than two points, widths that differ or a number that is not finite; ABORTED
 */
export async function distancesBetween(
  points: readonly ArrayLike<number>[],
  { signal }: { signal?: AbortSignal } = {},
): Promise<Distances> {
  const n = points.length;
  const width = points[0]?.length ?? 0;
  if (n < 2 || width === 0 || points.some((point) => point.length !== width)) {
    throw new XpatchError('INVALID_ARGUMENT', 'Distances need at least two points of one width.');
  }
  const data = new Float64Array(n * n);
  const pace = new Pace(signal);
  for (let i = 0; i < n; i++) {
    if (pace.due()) await pace.rest();
    const a = points[i] as ArrayLike<number>;
    for (let j = i + 1; j < n; j++) {
      const b = points[j] as ArrayLike<number>;
      let sum = 0;
      for (let d = 0; d < width; d++) sum += ((a[d] as number) - (b[d] as number)) ** 2;
      if (!Number.isFinite(sum)) {
        throw new XpatchError('INVALID_ARGUMENT', `Point ${i} or ${j} has a number that is not finite.`);
      }
      data[i * n + j] = data[j * n + i] = Math.sqrt(sum);
    }
  }
  return { n, data };
}

/**
 * Silhouette of every point (Rousseeuw 1987): (b - a) / max(a, b), a the mean distance to the other points of its label and
 * b the smallest mean distance to those of another label; 0 for a point that is alone with its label.
 *
 * @throws {XpatchError} INVALID_ARGUMENT unless there are at least two labels, one for each point
 */
export function silhouettes({ n, data }: Distances, labels: readonly string[]): Float64Array {
  const { codes, sizes } = encode(labels, n);
  const sums = new Float64Array(sizes.length);
  return Float64Array.from({ length: n }, (_, i) => {
    sums.fill(0);
    for (let j = 0; j < n; j++) {
      const code = codes[j] as number;
      sums[code] = (sums[code] as number) + (data[i * n + j] as number);
    }
    const own = codes[i] as number;
    const size = sizes[own] as number;
    if (size === 1) return 0;
    const a = (sums[own] as number) / (size - 1);
    let b = Number.POSITIVE_INFINITY;
    for (let code = 0; code < sizes.length; code++) {
      if (code !== own) b = Math.min(b, (sums[code] as number) / (sizes[code] as number));
    }
    return Math.max(a, b) === 0 ? 0 : (b - a) / Math.max(a, b);
  });
}

/**
 * The k nearest other points of every point, nearest first (ties: the earlier one): `[i * k + r]`.
 *
 * @param among whether j may be a neighbour of i. Defaults to all other points
 * @throws {XpatchError} INVALID_ARGUMENT when a point has fewer than k points to choose from
 */
export function nearest(
  { n, data }: Distances,
  k: number,
  among: (i: number, j: number) => boolean = () => true,
): Int32Array {
  if (!Number.isInteger(k) || k < 1 || k >= n) {
    throw new XpatchError('INVALID_ARGUMENT', `${n} points have 1 to ${n - 1} neighbours each, not ${k}.`);
  }
  const found = new Int32Array(n * k);
  for (let i = 0; i < n; i++) {
    const others = Array.from({ length: n }, (_, j) => j).filter((j) => j !== i && among(i, j));
    if (others.length < k) {
      throw new XpatchError('INVALID_ARGUMENT', `Point ${i} has ${others.length} others to choose from, not ${k}.`);
    }
    const distance = (j: number) => data[i * n + j] as number;
    others.sort((x, y) => distance(x) - distance(y) || x - y);
    found.set(others.slice(0, k), i * k);
  }
  return found;
}

/** Share of the neighbours of every point that have its label. @param neighbours of `nearest` */
export function purities(neighbours: Int32Array, labels: readonly string[]): Float64Array {
  const n = labels.length;
  const { codes } = encode(labels, n);
  const k = neighbours.length / n;
  return Float64Array.from({ length: n }, (_, i) => {
    let same = 0;
    for (let r = 0; r < k; r++) if (codes[neighbours[i * k + r] as number] === codes[i]) same++;
    return same / k;
  });
}

/** A mean over points with its bootstrap interval, and what the same number is when the labels mean nothing. */
export interface ClusterScore extends Estimate {
  readonly chance: {
    /** Mean and 97.5 % quantile over the permutations. */
    readonly mean: number;
    readonly high: number;
    /** Share of the permutations, the true labels among them, that score at least as high. */
    readonly p: number;
  };
}

/** A point as the intervals take it: those of one item and domain come or go together. */
type PointIdentity = Omit<Observation, 'value'>;

const PERMUTATIONS = 200;

/**
 * Silhouette or neighbour purity of a labelling.
 *
 * The interval resamples the scores of the points, whole items at a time (the text and the picture prompt of one turn, and
 * the tasks of one domain, have the same items); distances are not recomputed, so it speaks of the average over points
 * of this kind, among these neighbours. Chance: 200 seeded permutations of the labels over the points; points of one item that
 * have the same label keep having the same, since they are not independent.
 *
 * @param points those of a score from 0 to 1, such as a purity, say so (`share`)
 * @param score of all points for one labelling
 * @throws {XpatchError} INVALID_ARGUMENT, ABORTED
 */
export async function clusterScore(
  labels: readonly string[],
  points: readonly PointIdentity[],
  score: (labels: readonly string[]) => Float64Array,
  { seed = 0, signal }: { seed?: number; signal?: AbortSignal } = {},
): Promise<ClusterScore> {
  const own = score(labels);
  const estimate = bootstrapInterval(
    points.map((point, i) => ({ ...point, value: own[i] as number })),
    seed,
  );
  const units = new Map<string, string>();
  const unitOf = points.map(({ task, domain = task, item }, i) => {
    const unit = JSON.stringify([domain, item, labels[i]]);
    units.set(unit, labels[i] as string);
    return unit;
  });
  const names = [...units.keys()];
  const random = new Random(seed, 'permutation');
  const means = new Float64Array(PERMUTATIONS);
  const pace = new Pace(signal);
  for (let r = 0; r < PERMUTATIONS; r++) {
    if (pace.due()) await pace.rest();
    const drawn = random.sample([...units.values()]);
    const permuted = new Map(names.map((unit, i) => [unit, drawn[i] as string]));
    means[r] = mean(score(unitOf.map((unit) => permuted.get(unit) as string)));
  }
  const atLeast = means.filter((value) => value >= mean(own)).length;
  means.sort();
  const high = means[Math.ceil(0.975 * PERMUTATIONS) - 1] as number;
  return { ...estimate, chance: { mean: mean(means), high, p: (1 + atLeast) / (1 + PERMUTATIONS) } };
}

const mean = (values: Float64Array) => values.reduce((a, b) => a + b, 0) / values.length;

function encode(labels: readonly string[], n: number): { codes: Int32Array; sizes: number[] } {
  const names = [...new Set(labels)];
  if (labels.length !== n || names.length < 2) {
    const message = `${labels.length} labels of ${names.length} kinds cannot be compared for ${n} points`;
    throw new XpatchError('INVALID_ARGUMENT', `${message}: give each point one of at least two labels.`);
  }
  const place = new Map(names.map((name, code) => [name, code]));
  const codes = Int32Array.from(labels, (label) => place.get(label) as number);
  const sizes = new Array<number>(names.length).fill(0);
  for (const code of codes) sizes[code] = (sizes[code] as number) + 1;
  return { codes, sizes };
}
