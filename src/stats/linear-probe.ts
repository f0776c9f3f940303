import { dot } from '../util/dot.js';
import { XpatchError } from '../util/errors.js';
import { Pace } from '../util/pace.js';
import { Random } from '../util/random.js';
import { cholesky, solveTriangles } from './ridge.js';

/** Parts that the groups are divided into: a probe learns from all but one. */
export const FOLDS = 5;
/** Of the penalty, relative to the mean square of a point: the strongest first, which is taken where none is better. */
const STRENGTHS = [10, 1, 0.1, 0.01];

/**
 * Which points a linear probe labels rightly that has seen neither them nor anything of their group: least squares on the labels, one
 * against the rest, with a ridge penalty, after each dimension is brought to mean 0 and variance 1 over all points. The points of a fold are labelled
 * by what the other folds teach; the penalty is the best of four on the fold after it, learnt from the rest.
 *
 * @param labellings labels of the points, one or several times; folds hold equal shares of the first one's labels
 * @param groups of the points: what belongs together, such as the positions of a prompt
 * @param seed of the division into folds
 * @returns [labelling][point]
 * @throws {XpatchError} INVALID_ARGUMENT for fewer groups than folds; NOT_FINITE; ABORTED
 */
export async function linearProbe(
  points: readonly ArrayLike<number>[],
  labellings: readonly (readonly string[])[],
  groups: readonly (string | number)[],
  { seed = 1, signal }: { seed?: number; signal?: AbortSignal | undefined } = {},
): Promise<boolean[][]> {
  const pace = new Pace(signal);
  const kernel = await kernelOf(points, pace);
  const folds = foldsOf(labellings[0] as readonly string[], groups, new Random(seed, 'folds'));
  const right = labellings.map(() => new Array<boolean>(points.length).fill(false));
  for (let fold = 0; fold < FOLDS; fold++) {
    const after = (fold + 1) % FOLDS;
    const members = (keep: (fold: number) => boolean) => [...folds.keys()].filter((i) => keep(folds[i] as number));
    const [test, tuning] = [members((f) => f === fold), members((f) => f === after)];
    const tuned = await probe(
      kernel,
      members((f) => f !== fold && f !== after),
      tuning,
      labellings,
      STRENGTHS,
      pace,
    );
    const best = labellings.map((_, l) => {
      const counts = tuned.map((found) => (found[l] as boolean[]).filter(Boolean).length);
      return counts.indexOf(Math.max(...counts));
    });
    const strengths = [...new Set(best)];
    const asked = strengths.map((s) => STRENGTHS[s] as number);
    const found = await probe(
      kernel,
      members((f) => f !== fold),
      test,
      labellings,
      asked,
      pace,
    );
    for (const [l, labelled] of right.entries()) {
      const hits = found[strengths.indexOf(best[l] as number)]?.[l] as boolean[];
      for (const [i, point] of test.entries()) labelled[point] = hits[i] as boolean;
    }
  }
  return right;
}

/** Products of the points, each dimension brought to mean 0 and variance 1, over the width: 1 on the diagonal on average. */
async function kernelOf(points: readonly ArrayLike<number>[], pace: Pace): Promise<Float64Array> {
  const n = points.length;
  const width = points[0]?.length ?? 0;
  const x = new Float64Array(n * width);
  for (const [i, point] of points.entries()) x.set(point, i * width);
  for (let d = 0; d < width; d++) {
    let [sum, squares] = [0, 0];
    for (let i = d; i < x.length; i += width) sum += x[i] as number;
    for (let i = d; i < x.length; i += width) squares += ((x[i] as number) - sum / n) ** 2;
    const scale = squares > 0 ? 1 / Math.sqrt(squares / n) : 0;
    for (let i = d; i < x.length; i += width) x[i] = ((x[i] as number) - sum / n) * scale;
    if (pace.due()) await pace.rest();
  }
  const kernel = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      kernel[i * n + j] = kernel[j * n + i] = dot(x, x, i * width, j * width, width) / width;
    }
    if (pace.due()) await pace.rest();
  }
  if (!kernel.every(Number.isFinite)) {
    throw new XpatchError('NOT_FINITE', 'A state holds NaN or infinity, so that no probe can be fitted to it.');
  }
  return kernel;
}

/** The fold of each point. */
function foldsOf(labels: readonly string[], groups: readonly (string | number)[], random: Random): number[] {
  const byLabel = new Map<string, Set<string | number>>();
  for (const [i, group] of groups.entries()) {
    const label = labels[i] as string;
    byLabel.set(label, (byLabel.get(label) ?? new Set()).add(group));
  }
  const order = [...byLabel.values()].flatMap((own) => random.sample([...own]));
  if (new Set(order).size < FOLDS) {
    throw new XpatchError('INVALID_ARGUMENT', `A probe needs at least ${FOLDS} prompts. Give more.`);
  }
  const foldOf = new Map(order.map((group, i) => [group, i % FOLDS]));
  return groups.map((group) => foldOf.get(group) as number);
}

/** What probes that learn from some points make of others. @returns [strength][labelling][test point]: whether it is right */
async function probe(
  kernel: Float64Array,
  train: readonly number[],
  test: readonly number[],
  labellings: readonly (readonly string[])[],
  strengths: readonly number[],
  pace: Pace,
): Promise<boolean[][][]> {
  const n = Math.sqrt(kernel.length);
  const m = train.length;
  const at = (i: number, j: number) => kernel[i * n + j] as number;
  const means = train.map((i) => train.reduce((sum, j) => sum + at(i, j), 0) / m);
  const mean = means.reduce((sum, x) => sum + x, 0) / m;
  const classes = labellings.map((labels) => [...new Set(train.map((i) => labels[i] as string))]);
  const columns = classes.reduce((sum, { length }) => sum + length, 0);
  const targets = targetsOf(train, labellings, classes, columns);
  // Of the test points with those learnt from, both as seen from the centre of the latter.
  const seen = test.map((t) => {
    const own = train.reduce((sum, j) => sum + at(t, j), 0) / m;
    return Float64Array.from(train, (j, i) => at(t, j) - own - (means[i] as number) + mean);
  });
  const results: boolean[][][] = [];
  for (const strength of strengths) {
    const factor = new Float64Array(m * m);
    for (const [i, a] of train.entries()) {
      for (let j = 0; j <= i; j++) {
        factor[i * m + j] = at(a, train[j] as number) - (means[i] as number) - (means[j] as number) + mean;
      }
      factor[i * m + i] = (factor[i * m + i] as number) + strength;
    }
    const weights = Float64Array.from(targets.centred);
    await cholesky(factor, m, pace);
    await solveTriangles(factor, weights, m, columns, pace);
    const scores = seen.map((row) => {
      const score = Float64Array.from(targets.means);
      for (const [i, x] of row.entries()) {
        for (let c = 0; c < columns; c++) score[c] = (score[c] as number) + x * (weights[i * columns + c] as number);
      }
      return score;
    });
    let first = 0;
    results.push(
      labellings.map((labels, l) => {
        const own = classes[l] as string[];
        const from = first;
        first += own.length;
        return test.map((t, i) => {
          const score = (scores[i] as Float64Array).subarray(from, from + own.length);
          return own[score.indexOf(Math.max(...score))] === labels[t];
        });
      }),
    );
  }
  return results;
}

/** A column for each label of each labelling: 1 where a point has it, less the column's mean. */
function targetsOf(
  train: readonly number[],
  labellings: readonly (readonly string[])[],
  classes: readonly (readonly string[])[],
  columns: number,
) {
  const means = new Float64Array(columns);
  const centred = new Float64Array(train.length * columns);
  for (const [row, i] of train.entries()) {
    let first = 0;
    for (const [l, labels] of labellings.entries()) {
      const column = first + (classes[l] as readonly string[]).indexOf(labels[i] as string);
      centred[row * columns + column] = 1;
      means[column] = (means[column] as number) + 1 / train.length;
      first += (classes[l] as readonly string[]).length;
    }
  }
  for (let k = 0; k < centred.length; k++) centred[k] = (centred[k] as number) - (means[k % columns] as number);
  return { centred, means };
}
