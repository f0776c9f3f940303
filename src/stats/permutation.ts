import { XpatchError } from '../util/errors.js';
import { Random } from '../util/random.js';
import { gather, type Observation, pairedDifferences } from './statistics.js';

/** A two-sided paired test of two conditions. */
export interface PermutationTest {
  /** Mean over tasks of the mean over queries, first condition minus second. */
  readonly difference: number;
  /** Probability of a difference at least as far from 0 when the names of the conditions mean nothing. */
  readonly p: number;
  /** `exact` counts every assignment of signs, `monte-carlo` a seeded draw of them. */
  readonly method: 'exact' | 'monte-carlo';
  /** Number of drawn assignments; absent of an exact test. */
  readonly resamples?: number;
  /** Number of scored queries of each condition. */
  readonly n: number;
  /** Number of different items among them: what the signs are given to. */
  readonly items: number;
}

/** A comparison as one of a family. */
export interface FamilyTest extends PermutationTest {
  /** p after Holm's correction: below 0.05 in any of the family with a probability of 5 % at most when all are null. */
  readonly adjusted: number;
}

/** Outcomes that an exact test may have to look at. */
const EXACT = 2 ** 18;
const RESAMPLES = 19_999;

/**
 * Sign-flip permutation test (Fisher 1935; Good 2005, section 3.2) of the difference of two conditions that answered the
 * same queries.
 *
 * The signs go to whole items of a domain, as in `bootstrapInterval`: when the two conditions are alike, swapping their
 * scores on an item, under all seeds and in all tasks of the domain at once, changes nothing. Each task has the same
 * weight. Items whose differences weigh the same are counted together (by binomial weights), which makes the test exact
 * wherever there are few kinds of them, as for one task; otherwise 19999 assignments are drawn by seed and
 * p = (1 + as far) / (1 + drawn), which is never 0 and keeps its level (Phipson and Smyth 2010).
 *
 * @param first scores of one condition, any numbers
 * @param seed of the drawing. Defaults to 0
 * @throws {XpatchError} INVALID_ARGUMENT without observations, or when a query of one condition is missing in the other
 */
export function permutationTest(
  first: readonly Observation[],
  second: readonly Observation[],
  seed = 0,
): PermutationTest {
  const differences = pairedDifferences(first, second);
  const weights = itemWeights(differences);
  const kinds = group(weights);
  const observed = kinds.reduce((sum, { weight, balance }) => sum + weight * balance, 0);
  // Sums in another order differ in their last bits; what is as far must count as such.
  const far = Math.abs(observed) - 1e-9 * kinds.reduce((sum, { weight, count }) => sum + weight * count, 0);
  const outcomes = kinds.reduce((product, { count }) => product * (count + 1), 1);
  const difference = weights.reduce((sum, weight) => sum + weight, 0);
  const about = { difference, n: first.length, items: weights.length };
  if (outcomes <= EXACT) return { ...about, p: exactTail(kinds, far), method: 'exact' };
  const drawn = drawnTail(kinds, far, new Random(seed, 'permutation'));
  return { ...about, p: (1 + drawn) / (1 + RESAMPLES), method: 'monte-carlo', resamples: RESAMPLES };
}

/** Tests every pair of a family of comparisons that are read together, and corrects for their number by Holm's method. */
export function compareFamily(
  pairs: readonly { readonly first: readonly Observation[]; readonly second: readonly Observation[] }[],
  seed = 0,
): FamilyTest[] {
  const tests = pairs.map(({ first, second }) => permutationTest(first, second, seed));
  const adjusted = holm(tests.map(({ p }) => p));
  return tests.map((test, i) => ({ ...test, adjusted: adjusted[i] as number }));
}

/**
 * Holm's step-down correction (Holm 1979), which controls the chance of any false finding in the family whatever the
 * dependence of its tests.
 * @returns adjusted p-values, in the order given
 * @throws {XpatchError} INVALID_ARGUMENT when one is not a probability
 */
export function holm(pValues: readonly number[]): number[] {
  const bad = pValues.find((p) => !(p >= 0 && p <= 1));
  if (bad !== undefined) {
    throw new XpatchError('INVALID_ARGUMENT', `${String(bad)} is not a p-value: give numbers from 0 to 1.`);
  }
  const adjusted = [...pValues];
  let largest = 0;
  for (const [rank, i] of [...pValues.keys()]
    .sort((a, b) => (pValues[a] as number) - (pValues[b] as number))
    .entries()) {
    largest = Math.max(largest, Math.min(1, (pValues[i] as number) * (pValues.length - rank)));
    adjusted[i] = largest;
  }
  return adjusted;
}

/** What each item adds to the mean over tasks. */
function itemWeights(differences: readonly Observation[]): number[] {
  const { domains, tasks: nTasks } = gather(differences);
  const totals = new Array<number>(nTasks).fill(0);
  for (const { tasks, counts } of domains) {
    for (const [at, count] of counts.entries()) {
      const task = tasks[at % tasks.length] as number;
      totals[task] = (totals[task] as number) + count;
    }
  }
  return domains.flatMap(({ items, tasks, sums }) =>
    Array.from({ length: items }, (_, item) =>
      tasks.reduce((weight, task, t) => {
        const sum = sums[item * tasks.length + t] as number;
        return weight + sum / (totals[task] as number) / nTasks;
      }, 0),
    ),
  );
}

/** Items that weigh the same but for the sign. */
interface Kind {
  readonly weight: number;
  count: number;
  /** Items with a plus, less those with a minus. */
  balance: number;
}

function group(weights: readonly number[]): Kind[] {
  const kinds = new Map<string, Kind>();
  const largest = weights.reduce((most, weight) => Math.max(most, Math.abs(weight)), 0);
  for (const weight of weights) {
    const size = Math.abs(weight);
    if (size <= 1e-12 * largest) continue; // differences that cancel, which a rounding error may keep from 0
    const key = size.toPrecision(10);
    const kind = kinds.get(key) ?? { weight: Number(key), count: 0, balance: 0 };
    kinds.set(key, kind);
    kind.count++;
    kind.balance += Math.sign(weight);
  }
  return [...kinds.values()].sort((a, b) => b.weight - a.weight);
}

/** Probability of a sum at least `far` from 0. */
function exactTail(kinds: readonly Kind[], far: number): number {
  const binomials = kinds.map(({ count }) => binomialWeights(count));
  const tail = (sum: number, at: number): number => {
    const kind = kinds[at];
    if (kind === undefined) return Math.abs(sum) >= far ? 1 : 0;
    return (binomials[at] as Float64Array).reduce(
      (total, share, plus) => total + share * tail(sum + kind.weight * (2 * plus - kind.count), at + 1),
      0,
    );
  };
  return Math.min(1, tail(0, 0));
}

/** Probabilities of 0 to `count` heads of a fair coin. */
function binomialWeights(count: number): Float64Array {
  const logs = new Float64Array(count + 1);
  logs[0] = -count * Math.LN2;
  for (let k = 1; k <= count; k++) logs[k] = (logs[k - 1] as number) + Math.log((count - k + 1) / k);
  return logs.map(Math.exp);
}

/** How many of the drawn assignments of signs give a sum at least `far` from 0. */
function drawnTail(kinds: readonly Kind[], far: number, random: Random): number {
  let tail = 0;
  for (let r = 0; r < RESAMPLES; r++) {
    let sum = 0;
    for (const { weight, count } of kinds) sum += weight * (2 * heads(count, random) - count);
    if (Math.abs(sum) >= far) tail++;
  }
  return tail;
}

/** Heads among `count` throws of a fair coin. */
function heads(count: number, random: Random): number {
  let total = 0;
  for (let left = count; left > 0; left -= 32) {
    total += ones(random.uint32() >>> (left < 32 ? 32 - left : 0));
  }
  return total;
}

/** Set bits of a 32-bit word, counted in pairs, nibbles and bytes at once. */
function ones(word: number): number {
  const pairs = word - ((word >>> 1) & 0x55555555);
  const nibbles = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
  const bytes = (nibbles + (nibbles >>> 4)) & 0x0f0f0f0f;
  const halves = bytes + (bytes >>> 8);
  return (halves + (halves >>> 16)) & 0x3f;
}
