import { dot } from '../util/dot.js';
import { XpatchError } from '../util/errors.js';
import type { Pace } from '../util/pace.js';

/** Rows taken together: each sum is loaded and stored once for all of them. */
const BLOCK = 8;

/** A dimension whose variance is smaller than this part of its mean square is constant but for rounding. */
const CONSTANT = 1e-12;

/** `prediction = matrix x + bias`, `matrix` row-major [width, width]. */
interface AffineMap {
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
    const bias = Float64Array.from(meanY);
    if (strength !== Number.POSITIVE_INFINITY) {
      const { correlations, scales } = await this.correlations(meanX, pace);
      for (let i = 0; i < width; i++) {
        correlations[i * width + i] = (correlations[i * width + i] as number) + strength;
      }
      const solution = await this.covariances(meanX, meanY, scales, pace);
      await cholesky(correlations, width, pace);
      await solveTriangles(correlations, solution, width, width, pace);
      for (let i = 0; i < width; i++) {
        const scale = scales[i] as number;
        for (let j = 0; j < width; j++) {
          const value = scale === 0 ? 0 : (solution[i * width + j] as number) / scale;
          matrix[j * width + i] = value;
          bias[j] = (bias[j] as number) - value * (meanX[i] as number);
        }
        if (pace.due()) await pace.rest();
      }
    }
    // NaN or infinity anywhere in the matrix is in the bias too.
    if (!bias.every(Number.isFinite)) {
      throw new XpatchError(
        'NOT_FINITE',
        'The lens cannot be fitted: a state holds NaN or infinity, or the regression overflows.',
      );
    }
    return { matrix, bias: Float32Array.from(bias) };
  }

  private async flush(pace: Pace): Promise<void> {
    const { width, xx, xy, block } = this;
    if (block.size === 0) return;
    block.wx.fill(0, block.size * width);
    const w = new Float64Array(BLOCK);
    for (let i = 0; i < width; i++) {
      for (let r = 0; r < BLOCK; r++) w[r] = block.wx[r * width + i] as number;
      accumulate(xx, i * width, w, block.x, 0, width, i, width);
      accumulate(xy, i * width, w, block.y, 0, width, 0, width);
      if (pace.due()) await pace.rest();
    }
    block.size = 0;
  }

  /** Correlation matrix of x, lower triangle and diagonal, and standard deviations; 0 marks a constant dimension. */
  private async correlations(mean: Float64Array, pace: Pace) {
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
      if (pace.due()) await pace.rest();
    }
    return { correlations, scales };
  }

  /** Covariances of scaled x with y, row i for dimension i of x. */
  private async covariances(meanX: Float64Array, meanY: Float64Array, scales: Float64Array, pace: Pace) {
    const { width, xy, weight } = this;
    const out = new Float64Array(width * width);
    for (let i = 0; i < width; i++) {
      const scale = scales[i] as number;
      if (scale === 0) continue;
      for (let j = 0; j < width; j++) {
        const at = i * width + j;
        out[at] = ((xy[at] as number) / weight - (meanX[i] as number) * (meanY[j] as number)) / scale;
      }
      if (pace.due()) await pace.rest();
    }
    return out;
  }
}

/** sums[at + j] += sum over eight rows r of w[r] rows[from + r width + j], for j from `first` to before `end`. */
function accumulate(
  sums: Float64Array,
  at: number,
  w: Float64Array,
  rows: Float64Array,
  from: number,
  width: number,
  first: number,
  end: number,
): void {
  const w0 = w[0] as number;
  const w1 = w[1] as number;
  const w2 = w[2] as number;
  const w3 = w[3] as number;
  const w4 = w[4] as number;
  const w5 = w[5] as number;
  const w6 = w[6] as number;
  const w7 = w[7] as number;
  for (let j = first; j < end; j++) {
    const row = from + j;
    let sum = (sums[at + j] as number) + w0 * (rows[row] as number);
    sum += w1 * (rows[row + width] as number);
    sum += w2 * (rows[row + 2 * width] as number);
    sum += w3 * (rows[row + 3 * width] as number);
    sum += w4 * (rows[row + 4 * width] as number);
    sum += w5 * (rows[row + 5 * width] as number);
    sum += w6 * (rows[row + 6 * width] as number);
    sum += w7 * (rows[row + 7 * width] as number);
    sums[at + j] = sum;
  }
}

/** Replaces the lower triangle of a symmetric positive definite matrix by its Cholesky factor L, A = L L'. */
export async function cholesky(a: Float64Array, n: number, pace: Pace): Promise<void> {
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      const rest = (a[i * n + j] as number) - dot(a, a, i * n, j * n, j);
      a[i * n + j] = i === j ? Math.sqrt(rest) : rest / (a[j * n + j] as number);
    }
    if (pace.due()) await pace.rest();
  }
}

/** Columns solved together, few enough that their part of B stays in the processor's cache. */
const COLUMNS = 64;

/** Solves L L' Z = B in place, B row-major [n, width]. */
export async function solveTriangles(
  l: Float64Array,
  b: Float64Array,
  n: number,
  width: number,
  pace: Pace,
): Promise<void> {
  const factors = new Float64Array(BLOCK);
  for (let first = 0; first < width; first += COLUMNS) {
    const end = Math.min(width, first + COLUMNS);
    /** Takes rows `from` to before `to`, times entries of L, out of row i, and divides it by the diagonal. */
    const finish = (i: number, from: number, to: number, entry: (k: number) => number) => {
      let k = from;
      for (; k + BLOCK <= to; k += BLOCK) {
        for (let r = 0; r < BLOCK; r++) factors[r] = -(l[entry(k + r)] as number);
        accumulate(b, i * width, factors, b, k * width, width, first, end);
      }
      for (; k < to; k++) {
        const factor = l[entry(k)] as number;
        for (let j = first; j < end; j++)
          b[i * width + j] = (b[i * width + j] as number) - factor * (b[k * width + j] as number);
      }
      const diagonal = l[i * n + i] as number;
      for (let j = first; j < end; j++) b[i * width + j] = (b[i * width + j] as number) / diagonal;
    };
    for (let i = 0; i < n; i++) {
      finish(i, 0, i, (k) => i * n + k);
      if (pace.due()) await pace.rest();
    }
    for (let i = n - 1; i >= 0; i--) {
      finish(i, i + 1, n, (k) => k * n + i);
      if (pace.due()) await pace.rest();
    }
  }
}
