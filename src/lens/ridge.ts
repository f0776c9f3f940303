import { XpatchError } from '../errors.js';
import type { Pace } from './pace.js';

/** Rows taken together: each sum is loaded and stored once for all of them. */
const BLOCK = 8;

/** A dimension whose variance is smaller than this part of its mean square is constant but for rounding. */
const CONSTANT = 1e-12;

/** `prediction = matrix x + bias`, `matrix` row-major [width, width]. */
export interface AffineMap {
  matrix: Float32Array;
  bias: Float32Array;
}

/**
 * Weighted ridge regression of `width` numbers on `width` others from sums over the samples, so that memory does not grow
 * with them: 16 width^2 bytes. In double precision.
 */
export class RidgeSums {
  private weight = 0;
  private readonly x: Float64Array;
  private readonly y: Float64Array;
  /** Upper triangle of sum w x x', row by row. */
  private readonly xx: Float64Array;
  private readonly xy: Float64Array;
  private readonly block: { size: number; wx: Float64Array; x: Float64Array; y: Float64Array };

  constructor(readonly width: number) {
    this.x = new Float64Array(width);
    this.y = new Float64Array(width);
    this.xx = new Float64Array(width * width);
    this.xy = new Float64Array(width * width);
    const rows = () => new Float64Array(BLOCK * width);
    this.block = { size: 0, wx: rows(), x: rows(), y: rows() };
  }

  /** Adds the sample (x, y) with a weight. */
  async add(x: ArrayLike<number>, y: ArrayLike<number>, weight: number, pace: Pace): Promise<void> {
    const { width, block } = this;
    const at = block.size * width;
    for (let i = 0; i < width; i++) {
      const xi = x[i] as number;
      const yi = y[i] as number;
      block.x[at + i] = xi;
      block.y[at + i] = yi;
      block.wx[at + i] = weight * xi;
      this.x[i] = (this.x[i] as number) + weight * xi;
      this.y[i] = (this.y[i] as number) + weight * yi;
    }
    this.weight += weight;
    block.size++;
    if (block.size === BLOCK) await this.flush(pace);
  }

  /**
   * The map that minimises sum w |y - (matrix x + bias)|^2 + strength W |B|^2, where B is the matrix for x scaled to variance
   * 1 in each dimension and W the sum of the weights: a strength of 1 halves what a dimension by itself predicts. The bias is
   * not penalised. At infinity the matrix is zero and the bias the mean of y.
   *
   * @throws XpatchError NOT_FINITE when the samples or the solution are not.
   */
  async solve(strength: number, pace: Pace): Promise<AffineMap> {
    await this.flush(pace);
    const { width } = this;
    const meanX = this.x.map((sum) => sum / this.weight);
    const meanY = this.y.map((sum) => sum / this.weight);
    const matrix = new Float32Array(width * width);
    if (strength !== Number.POSITIVE_INFINITY) {
      const { correlations, scales } = this.correlations(meanX);
      for (let i = 0; i < width; i++) {
        correlations[i * width + i] = (correlations[i * width + i] as number) + strength;
      }
      const right = this.covariances(meanX, meanY, scales);
      await cholesky(correlations, width, pace);
      await solveTriangles(correlations, right, width, pace);
      for (let i = 0; i < width; i++) {
        const scale = scales[i] as number;
        if (scale === 0) continue;
        for (let j = 0; j < width; j++) matrix[j * width + i] = (right[i * width + j] as number) / scale;
        if (pace.due()) await pace.rest();
      }
    }
    const bias = new Float32Array(width);
    for (let j = 0; j < width; j++) {
      let sum = meanY[j] as number;
      for (let i = 0; i < width; i++) sum -= (matrix[j * width + i] as number) * (meanX[i] as number);
      bias[j] = sum;
    }
    if (![...bias].every(Number.isFinite) || !matrix.every(Number.isFinite)) {
      throw new XpatchError(
        'NOT_FINITE',
        'The lens cannot be fitted: a state holds NaN or infinity, or the regression overflows.',
      );
    }
    return { matrix, bias };
  }

  private async flush(pace: Pace): Promise<void> {
    const { width, xx, xy, block } = this;
    if (block.size === 0) return;
    block.wx.fill(0, block.size * width);
    const w = new Float64Array(BLOCK);
    for (let i = 0; i < width; i++) {
      for (let r = 0; r < BLOCK; r++) w[r] = block.wx[r * width + i] as number;
      accumulate(xx, i * width, w, block.x, width, i);
      accumulate(xy, i * width, w, block.y, width, 0);
      if (pace.due()) await pace.rest();
    }
    block.size = 0;
  }

  /** Correlation matrix of x, lower triangle and diagonal, and standard deviations; 0 marks a constant dimension. */
  private correlations(mean: Float64Array): { correlations: Float64Array; scales: Float64Array } {
    const { width, xx, weight } = this;
    const scales = new Float64Array(width);
    for (let i = 0; i < width; i++) {
      const square = (xx[i * width + i] as number) / weight;
      const variance = square - (mean[i] as number) ** 2;
      scales[i] = variance > CONSTANT * square ? Math.sqrt(variance) : 0;
    }
    const correlations = new Float64Array(width * width);
    for (let i = 0; i < width; i++) {
      for (let j = 0; j <= i; j++) {
        const scale = (scales[i] as number) * (scales[j] as number);
        const covariance = (xx[j * width + i] as number) / weight - (mean[i] as number) * (mean[j] as number);
        correlations[i * width + j] = scale === 0 ? Number(i === j) : covariance / scale;
      }
    }
    return { correlations, scales };
  }

  /** Covariances of scaled x with y, row i for dimension i of x. */
  private covariances(meanX: Float64Array, meanY: Float64Array, scales: Float64Array): Float64Array {
    const { width, xy, weight } = this;
    const out = new Float64Array(width * width);
    for (let i = 0; i < width; i++) {
      const scale = scales[i] as number;
      if (scale === 0) continue;
      for (let j = 0; j < width; j++) {
        const at = i * width + j;
        out[at] = ((xy[at] as number) / weight - (meanX[i] as number) * (meanY[j] as number)) / scale;
      }
    }
    return out;
  }
}

/** sums[at + j] += sum over rows r of w[r] rows[r, j], for j from `first`. */
function accumulate(
  sums: Float64Array,
  at: number,
  w: Float64Array,
  rows: Float64Array,
  width: number,
  first: number,
): void {
  const w0 = w[0] as number;
  const w1 = w[1] as number;
  const w2 = w[2] as number;
  const w3 = w[3] as number;
  const w4 = w[4] as number;
  const w5 = w[5] as number;
  const w6 = w[6] as number;
  const w7 = w[7] as number;
  for (let j = first; j < width; j++) {
    let sum = (sums[at + j] as number) + w0 * (rows[j] as number);
    sum += w1 * (rows[j + width] as number);
    sum += w2 * (rows[j + 2 * width] as number);
    sum += w3 * (rows[j + 3 * width] as number);
    sum += w4 * (rows[j + 4 * width] as number);
    sum += w5 * (rows[j + 5 * width] as number);
    sum += w6 * (rows[j + 6 * width] as number);
    sum += w7 * (rows[j + 7 * width] as number);
    sums[at + j] = sum;
  }
}

/** Replaces the lower triangle of a symmetric positive definite matrix by its Cholesky factor L, A = L L'. */
async function cholesky(a: Float64Array, n: number, pace: Pace): Promise<void> {
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      const rest = (a[i * n + j] as number) - dot(a, i * n, j * n, j);
      a[i * n + j] = i === j ? Math.sqrt(rest) : rest / (a[j * n + j] as number);
    }
    if (pace.due()) await pace.rest();
  }
}

/** Solves L L' Z = B in place, B row-major [n, n]. */
async function solveTriangles(l: Float64Array, b: Float64Array, n: number, pace: Pace): Promise<void> {
  const reduce = (i: number, k: number, factor: number) => {
    for (let j = 0; j < n; j++) b[i * n + j] = (b[i * n + j] as number) - factor * (b[k * n + j] as number);
  };
  const divide = (i: number) => {
    const diagonal = l[i * n + i] as number;
    for (let j = 0; j < n; j++) b[i * n + j] = (b[i * n + j] as number) / diagonal;
  };
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) reduce(i, k, l[i * n + k] as number);
    divide(i);
    if (pace.due()) await pace.rest();
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) reduce(i, k, l[k * n + i] as number);
    divide(i);
    if (pace.due()) await pace.rest();
  }
}

/** Dot product of two runs of one array; four sums, so that no addition waits for the one before. */
function dot(a: Float64Array, first: number, second: number, length: number): number {
  let [s0, s1, s2, s3] = [0, 0, 0, 0];
  let i = 0;
  for (; i + 3 < length; i += 4) {
    s0 += (a[first + i] as number) * (a[second + i] as number);
    s1 += (a[first + i + 1] as number) * (a[second + i + 1] as number);
    s2 += (a[first + i + 2] as number) * (a[second + i + 2] as number);
    s3 += (a[first + i + 3] as number) * (a[second + i + 3] as number);
  }
  for (; i < length; i++) s0 += (a[first + i] as number) * (a[second + i] as number);
  return s0 + s1 + s2 + s3;
}
