import { TSNE } from '@saehrimnir/druidjs';
import { EigenvalueDecomposition, Matrix } from 'ml-matrix';
import type { OnProgress } from '../model/types.js';
import { XpatchError } from '../util/errors.js';
import { Pace } from '../util/pace.js';
import type { Distances } from './clusters.js';

/** How points are projected by t-SNE. */
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
  const pace = new Pace(signal);
  let layout: ArrayLike<number>[] = [];
  let done = 0;
  for (const step of run.generator(iterations)) {
    layout = step;
    done++;
    if (done % 20 && done < iterations) continue;
    onProgress?.({ done, total: iterations });
    if (pace.due()) await pace.rest();
  }
  return layout.map((point) => [point[0] as number, point[1] as number]);
}

/**
 * Principal components in two dimensions, from the distances alone (Torgerson 1952; equal to PCA for Euclidean distances),
 * so that the cost does not grow with the width. The sign of an axis makes its largest coordinate positive.
 *
 * @returns the points, and which share of the variance each axis has
 */
export function principalComponents({ n, data }: Distances): {
  points: [x: number, y: number][];
  explained: [number, number];
} {
  const gram = Matrix.from1DArray(n, n, data);
  gram.apply((i, j) => gram.set(i, j, -0.5 * gram.get(i, j) ** 2));
  gram.center('row').center('column');
  const { realEigenvalues, eigenvectorMatrix } = new EigenvalueDecomposition(gram, { assumeSymmetric: true });
  const order = realEigenvalues.map((_, i) => i).sort((a, b) => at(realEigenvalues, b) - at(realEigenvalues, a));
  const axes = [0, 1].map((a) => {
    const column = order[a] ?? 0;
    const variance = a < n ? Math.max(0, at(realEigenvalues, column)) : 0;
    const axis = eigenvectorMatrix.getColumn(column).map((x) => x * Math.sqrt(variance));
    const largest = axis.reduce((best, x) => (Math.abs(x) > Math.abs(best) ? x : best), 0);
    return { variance, axis: largest < 0 ? axis.map((x) => -x) : axis };
  });
  const total = gram.trace();
  const share = (a: number) => (total > 0 ? (axes[a]?.variance ?? 0) / total : 0);
  return {
    points: Array.from({ length: n }, (_, i) => [axes[0]?.axis[i] as number, axes[1]?.axis[i] as number]),
    explained: [share(0), share(1)],
  };
}

const at = (values: readonly number[], i: number): number => values[i] as number;
