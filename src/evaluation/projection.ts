import { setImmediate } from 'node:timers/promises';
import { TSNE } from '@saehrimnir/druidjs';
import { XpatchError } from '../errors.js';
import type { OnProgress } from '../model/types.js';
import { Random } from '../random.js';
import type { Distances } from './clusters.js';

export interface TsneOptions {
  /** Effective number of neighbours. Defaults to 30, or a third of the points when there are fewer than 90. */
  perplexity?: number;
  /** Defaults to 1000. */
  iterations?: number;
  /** Defaults to 1. */
  seed?: number;
  signal?: AbortSignal;
  /** Iterations done of all. */
  onProgress?: OnProgress;
}

/**
 * t-SNE in two dimensions (van der Maaten and Hinton 2008) by DruidJS. Equal seeds give equal pictures on one machine. What
 * it shows is who is near whom: sizes of clusters and distances between them mean nothing.
 *
 * @throws {XpatchError} INVALID_ARGUMENT for a perplexity that is not between 1 and the number of points, ABORTED
 */
export async function tsne({ n, data }: Distances, options: TsneOptions = {}): Promise<[x: number, y: number][]> {
  const { iterations = 1000, seed = 1, signal, onProgress } = options;
  const perplexity = options.perplexity ?? Math.min(30, n / 3);
  if (!(perplexity >= 1 && perplexity < n)) {
    const message = `The perplexity must be from 1 to below the number of points, ${n}, not ${perplexity}.`;
    throw new XpatchError('INVALID_ARGUMENT', `${message} Give more points.`);
  }
  // The library takes squared distances here. Their scale does not matter to t-SNE, but to its search for the bandwidths.
  const squares = data.map((distance) => distance * distance);
  const typical = squares.reduce((a, b) => a + b, 0) / (n * (n - 1)) || 1;
  const rows = Array.from({ length: n }, (_, i) => squares.subarray(i * n, (i + 1) * n).map((x) => x / typical));
  const run = new TSNE(rows, { d: 2, metric: 'precomputed', perplexity, seed });
  let layout: ArrayLike<number>[] = [];
  let done = 0;
  for (const step of run.generator(iterations)) {
    layout = step;
    done++;
    if (done % 20 && done < iterations) continue;
    if (signal?.aborted) throw new XpatchError('ABORTED', 'The call was aborted.', { cause: signal.reason });
    onProgress?.({ done, total: iterations });
    await setImmediate();
  }
  return layout.map((point) => [point[0] as number, point[1] as number]);
}

/** Steps of the iteration for principal components at most, and how little the axes move in the last one. */
const STEPS = 2000;
const STILL = 1e-12;

/**
 * Principal components in two dimensions, from the distances alone (Torgerson 1952; equal to PCA for Euclidean distances),
 * so that the cost does not grow with the width. By orthogonal iteration in steps, as the libraries at hand hold the event loop meanwhile.
 * The sign of an axis makes its largest coordinate positive.
 *
 * @returns the points, and which share of the variance each axis has
 * @throws {XpatchError} ABORTED
 */
export async function principalComponents(
  { n, data }: Distances,
  { signal }: { signal?: AbortSignal } = {},
): Promise<{ points: [x: number, y: number][]; explained: [number, number] }> {
  const squares = data.map((distance) => distance * distance);
  const means = Float64Array.from({ length: n }, (_, i) => {
    return squares.subarray(i * n, (i + 1) * n).reduce((a, b) => a + b, 0) / n;
  });
  const overall = means.reduce((a, b) => a + b, 0) / n;
  const gram = squares.map((square, at) => {
    return -0.5 * (square - (means[Math.floor(at / n)] as number) - (means[at % n] as number) + overall);
  });
  const random = new Random(1, 'principal-components');
  const axes = [0, 1].map(() => Float64Array.from({ length: n }, () => random.gaussian()));
  let variances = [0, 0];
  for (let step = 0, moved = 1; step < STEPS && moved > STILL; step++) {
    if (step % 50 === 0) {
      if (signal?.aborted) throw new XpatchError('ABORTED', 'The call was aborted.', { cause: signal.reason });
      await setImmediate();
    }
    moved = 0;
    variances = axes.map((axis, a) => {
      const next = Float64Array.from({ length: n }, (_, i) => dot(gram.subarray(i * n, (i + 1) * n), axis));
      for (const earlier of axes.slice(0, a)) {
        const along = dot(next, earlier);
        for (let i = 0; i < n; i++) next[i] = (next[i] as number) - along * (earlier[i] as number);
      }
      const length = Math.sqrt(dot(next, next));
      for (let i = 0; i < n; i++) next[i] = (next[i] as number) / (length || 1);
      moved = Math.max(moved, Math.abs(1 - dot(next, axis) ** 2));
      axis.set(next);
      return length;
    });
  }
  const coordinates = axes.map((axis, a) => {
    const largest = axis.reduce((best, x) => (Math.abs(x) > Math.abs(best) ? x : best), 0);
    return axis.map((x) => x * Math.sqrt(variances[a] as number) * (Math.sign(largest) || 1));
  });
  const total = means.reduce((sum, mean) => sum + mean - overall / 2, 0);
  const share = (a: number) => (total > 0 ? (variances[a] as number) / total : 0);
  return {
    points: Array.from({ length: n }, (_, i) => [coordinates[0]?.[i] as number, coordinates[1]?.[i] as number]),
    explained: [share(0), share(1)],
  };
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}
