import { EigenvalueDecomposition, Matrix } from 'ml-matrix';
import { dot } from '../util/dot.js';

/** The mean of the first points minus that of the others. All have the same width, and there is at least one of each. */
export function meanDifference(positive: readonly Float32Array[], negative: readonly Float32Array[]): Float64Array {
  const difference = new Float64Array((positive[0] as Float32Array).length);
  for (const [points, sign] of [
    [positive, 1],
    [negative, -1],
  ] as const) {
    for (const point of points) {
      for (const [i, x] of point.entries()) difference[i] = (difference[i] as number) + (sign * x) / points.length;
    }
  }
  return difference;
}

/**
 * The axis along which pairs differ most: the first principal component, of length 1, of the differences of pairs, which are not
 * centred, as what they have in common is what is asked for. It points to where most pairs have their positive one.
 *
 * Zou et al., "Representation Engineering", 2023; `pca_center` of repeng and the PCA of llama.cpp's cvector-generator.
 *
 * @param negative as many as `positive`, in the same order
 */
export function principalDifference(
  positive: readonly Float32Array[],
  negative: readonly Float32Array[],
): Float64Array {
  const differences = positive.map((point, i) => Float64Array.from(point, (x, d) => x - (negative[i]?.[d] as number)));
  // From the products of the pairs with one another: there are fewer pairs than dimensions.
  const gram = Matrix.zeros(differences.length, differences.length);
  gram.apply((i, j) => gram.set(i, j, dot(differences[i] as Float64Array, differences[j] as Float64Array)));
  const { realEigenvalues, eigenvectorMatrix } = new EigenvalueDecomposition(gram, { assumeSymmetric: true });
  const weights = eigenvectorMatrix.getColumn(realEigenvalues.indexOf(Math.max(...realEigenvalues)));
  const axis = new Float64Array((differences[0] as Float64Array).length);
  for (const [i, difference] of differences.entries()) {
    for (const [d, x] of difference.entries()) axis[d] = (axis[d] as number) + (weights[i] as number) * x;
  }
  const along = differences.map((difference) => Math.sign(dot(difference, axis))).reduce((sum, sign) => sum + sign, 0);
  const length = Math.sqrt(dot(axis, axis)) * (along < 0 ? -1 : 1);
  return axis.map((x) => x / length);
}
