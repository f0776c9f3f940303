import { plural } from '../util/counted.js';
import { Pace } from '../util/pace.js';
import { bootstrapInterval, type Observation, spreadOverSeeds } from './statistics.js';

/** One scored query of one condition: what the tables are made of. */
export interface ScoredQuery {
  /** Row of the table, e.g. `Text Patch`. */
  readonly condition: string;
  readonly task: string;
  readonly domain: string;
  readonly seed: number;
  /** The input of the query. */
  readonly item: string;
  /** Whether the first generated token passes the paper's rule (`lenientMatch`). */
  readonly lenient: boolean;
  /** Whether the longer answer is right as a whole (`strictMatch`). */
  readonly strict?: boolean;
  /** Probability of the first token of the expected answer, of several the most probable. */
  readonly probability?: number;
  /** Rank from 0 of the expected answer, of several the best, among all answers of the task by log-likelihood. */
  readonly answerRank?: number;
  /** Scores of one's own by name. */
  readonly own?: Readonly<Record<string, number>>;
}

/** What is averaged: `likelihood` is the share of queries whose expected answer ranks first among the task's answers. */
export const SCORES = ['lenient', 'strict', 'probability', 'likelihood'] as const;
/** One of `SCORES`, or the name of a score of one's own. */
export type Score = (typeof SCORES)[number] | (string & {});

/** A measured number with its interval, and how many queries and different items it comes from. */
export interface Cell {
  readonly value: number;
  readonly low: number;
  readonly high: number;
  readonly n: number;
  readonly items: number;
}

/** A table as data; src/report/tables.ts writes it as text, Markdown or CSV. */
export interface Table {
  readonly title: string;
  /** Head of the column of row names. */
  readonly corner: string;
  readonly columns: readonly string[];
  /** One cell a column; undefined where nothing was measured. */
  readonly rows: readonly { readonly label: string; readonly cells: readonly (Cell | undefined)[] }[];
  /** What the numbers are, one sentence each. */
  readonly notes: readonly string[];
}

/** What an accuracy table shows. */
export interface AccuracyTableOptions {
  readonly title: string;
  readonly score: Score;
  /** Rows, in this order; one without any scored query gets empty cells. Defaults to the order of appearance. */
  readonly conditions?: readonly string[];
  /** Columns, in this order. Defaults to the order of appearance. */
  readonly tasks?: readonly string[];
  /** Further notes, put before those about scores, intervals and n. */
  readonly notes?: readonly string[];
}

const SCORE_NOTES: Readonly<Record<string, string>> = {
  lenient:
    'Lenient score: the first generated token, stripped, and the expected answer are both non-empty and one is a prefix of the other.',
  strict: 'Strict score: the whole greedy answer, up to where the template ends it, equals the expected answer.',
  probability: 'Probability of the first token of the expected answer, of several right ones the most probable.',
  likelihood:
    'Likelihood score: of all answers of the task, the expected one, or one of several, has the highest log-likelihood.',
};

/**
 * Accuracy of every condition in every task and in their mean, with 95 % intervals.
 * @param pace others get their turn between two rows. Defaults to one without a signal
 * @throws {XpatchError} ABORTED by the pace's signal
 */
export async function accuracyTable(
  queries: readonly ScoredQuery[],
  options: AccuracyTableOptions,
  pace = new Pace(),
): Promise<Table> {
  const { title, score, notes = [] } = options;
  const { conditions = [...new Set(queries.map((query) => query.condition))] } = options;
  const { tasks = [...new Set(queries.map((query) => query.task))] } = options;
  const rows = await pace.map(conditions, (condition) => accuracyRow(queries, condition, tasks, score));
  const spreads = rows.flatMap(({ label, sd }) => (sd === undefined ? [] : [`${label} ${sd.toFixed(3)}`]));
  const seeds = [...new Set(queries.map((query) => query.seed))].sort((a, b) => a - b);
  return {
    title,
    corner: 'Condition',
    columns: [...tasks, 'mean'],
    rows: rows.map(({ label, cells }) => ({ label, cells })),
    notes: [
      ...notes,
      (Object.hasOwn(SCORE_NOTES, score) && SCORE_NOTES[score]) ||
        `Score ${score}: a function of the answer that is not part of xpatch. Where all items score alike, its interval is that number alone.`,
      `Ranges: 95 % bootstrap intervals over items, ${plural(seeds.length, 'seed')} ${seeds.join(', ')} held fixed.`,
      ...(spreads.length > 0 ? [`Standard deviation of the mean over the seeds: ${spreads.join(', ')}.`] : []),
      countNote(rows, tasks),
    ],
  };
}

interface AccuracyRow {
  readonly label: string;
  readonly cells: readonly (Cell | undefined)[];
  /** Spread of the mean over seeds. */
  readonly sd?: number | undefined;
}

function accuracyRow(
  queries: readonly ScoredQuery[],
  label: string,
  tasks: readonly string[],
  score: Score,
): AccuracyRow {
  const own = queries.filter((query) => query.condition === label && tasks.includes(query.task));
  const observations = observationsOf(own, score);
  const cells = tasks.map((task) => estimateCell(observations.filter((o) => o.task === task)));
  // A mean over fewer tasks than the other rows have would not be comparable.
  if (cells.includes(undefined)) return { label, cells: [...cells, undefined] };
  return { label, cells: [...cells, estimateCell(observations)], sd: spreadOverSeeds(observations).sd };
}

/** Queries as the statistics take them, those that were not scored this way left out. The scores of xpatch are shares, others need not be. */
export function observationsOf(queries: readonly ScoredQuery[], score: Score): Observation[] {
  const share = SCORES.some((one) => one === score);
  return queries.flatMap((query) => {
    const { task, domain, seed, item } = query;
    const value = scoreOf(query, score);
    return value === undefined ? [] : [{ task, domain, seed, item, share, value: Number(value) }];
  });
}

function scoreOf(query: ScoredQuery, score: Score): boolean | number | undefined {
  switch (score) {
    case 'lenient':
      return query.lenient;
    case 'strict':
      return query.strict;
    case 'probability':
      return query.probability;
    case 'likelihood':
      return query.answerRank === undefined ? undefined : query.answerRank === 0;
    default:
      return query.own && Object.hasOwn(query.own, score) ? query.own[score] : undefined;
  }
}

function estimateCell(observations: readonly Observation[]): Cell | undefined {
  return observations.length > 0 ? bootstrapInterval(observations) : undefined;
}

/** How many queries the cells of each column come from. */
export function countNote(rows: Table['rows'], columns: readonly string[]): string {
  const counts = columns.map((name, column) => {
    const cells = rows.flatMap((row) => row.cells[column] ?? []);
    const range = (values: number[]) => {
      const [low, high] = [Math.min(...values), Math.max(...values)];
      return low === high ? `${low}` : `${low}-${high}`;
    };
    if (cells.length === 0) return `${name} 0`;
    return `${name} ${range(cells.map((cell) => cell.n))} (${range(cells.map((cell) => cell.items))} items)`;
  });
  return `n, scored queries per cell, all seeds together: ${counts.join(', ')}.`;
}
