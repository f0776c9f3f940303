import { holm, permutationTest } from '../stats/permutation.js';
import { differenceInterval, type Estimate, type Observation } from '../stats/statistics.js';
import { observationsOf, type Score, type ScoredQuery } from '../stats/tables.js';
import { Pace } from '../util/pace.js';
import type { Condition, Experiment } from './types.js';

/** How much better the first condition is than the second: mean over tasks, paired, on the queries that both answered. */
export interface Comparison extends Estimate {
  readonly first: string;
  readonly second: string;
  /** From a paired permutation test (`permutationTest`). */
  readonly p: number;
  /** p after Holm's correction for the number of comparisons. */
  readonly adjusted: number;
}

/**
 * What an experiment compares, by name: every patch with the bare query, with the same specification in the prompt, with its
 * controls, with the same vector of the model itself (when it is foreign) and without noise, an ensemble with its parts;
 * always with the same kind of query.
 */
export function pairsOf(experiment: Experiment): [first: string, second: string][] {
  const { conditions } = experiment;
  return conditions.flatMap((first) =>
    conditions
      .filter((second) => second !== first && sameQuery(first, second, experiment) && comparable(first, second))
      .map((second): [string, string] => [first.name, second.name]),
  );
}

function sameQuery(a: Condition, b: Condition, { query }: Experiment): boolean {
  // A patch is compared with the same query that has the instruction before it.
  const before = b.kind === 'bare' ? '' : (b.before ?? '');
  return (
    (a.query ?? query) === (b.query ?? query) &&
    (a.question ?? '') === (b.question ?? '') &&
    (a.before ?? '') === before
  );
}

/** What a patch writes, and how. */
const VECTOR_FIELDS = ['vector', 'heads', 'op', 'strength', 'layers', 'steps'] as const;

/** As it is, and nothing else about it: what other vectors are compared with. */
export function isTaskVector(condition: Condition): boolean {
  const { name: _, kind, spec: __, query: ___, ...more } = condition;
  return kind === 'patch' && Object.keys(more).length === 0;
}

function comparable(patch: Condition, other: Condition): boolean {
  if (patch.kind !== 'patch' || patch.control !== undefined) return false;
  const { spec, prompts, swaps = 0, foreign = false } = patch;
  const sameVector = VECTOR_FIELDS.every((field) => other[field] === patch[field]);
  const ownSwaps = other.swaps ?? 0;
  const ownForeign = other.foreign ?? false;
  switch (other.kind) {
    case 'majority':
      return false;
    case 'bare':
      return true;
    case 'prompt':
      return other.spec === spec && ownSwaps === swaps;
    case 'patch': {
      if (!sameVector) return patch.vector !== undefined && isTaskVector(other) && other.spec === spec;
      const alike = other.prompts === prompts && ownSwaps === swaps && ownForeign === foreign;
      if (other.control !== undefined) return other.spec === spec && alike;
      if (spec === 'ensemble' && other.spec === 'instruction') return ownSwaps === swaps && ownForeign === foreign;
      if (spec === 'ensemble' && other.spec !== spec) return alike;
      const oneChange = ownForeign !== foreign ? foreign && ownSwaps === swaps : swaps > 0 && ownSwaps === 0;
      return other.spec === spec && other.prompts === prompts && oneChange;
    }
  }
}

/**
 * Compares conditions that are read together, as one family. Pairs without a query that both answered are left out.
 *
 * @param queries of the test, one per condition, task, seed and item
 * @param pace others get their turn between two pairs. Defaults to one without a signal
 */
export async function compareConditions(
  queries: readonly ScoredQuery[],
  pairs: readonly (readonly [first: string, second: string])[],
  score: Score,
  pace = new Pace(),
): Promise<Comparison[]> {
  const found = await pace.map(pairs, ([first, second]) => {
    const [a, b] = common(of(queries, first, score), of(queries, second, score));
    return a.length === 0 ? [] : [{ first, second, ...differenceInterval(a, b), p: permutationTest(a, b).p }];
  });
  const compared = found.flat();
  const adjusted = holm(compared.map(({ p }) => p));
  return compared.map((comparison, i) => ({ ...comparison, adjusted: adjusted[i] as number }));
}

function of(queries: readonly ScoredQuery[], condition: string, score: Score): Observation[] {
  return observationsOf(
    queries.filter((query) => query.condition === condition),
    score,
  );
}

/** The observations of queries that are in both. */
function common(a: readonly Observation[], b: readonly Observation[]): [Observation[], Observation[]] {
  const key = ({ task, seed, item }: Observation) => JSON.stringify([task, seed, item]);
  const [inA, inB] = [new Set(a.map(key)), new Set(b.map(key))];
  return [a.filter((o) => inB.has(key(o))), b.filter((o) => inA.has(key(o)))];
}
