import { parse, win32 } from 'node:path';
import { type Comparison, compareConditions, pairsOf } from '../../experiment/comparisons.js';
import { lenientMatch, strictMatch } from '../../experiment/scoring.js';
import { kindOf } from '../../experiment/study.js';
import type { Condition, Experiment, ResultLine } from '../../experiment/types.js';
import { bootstrapInterval, mean, quantile } from '../../stats/statistics.js';
import {
  accuracyTable,
  type Cell,
  countNote,
  observationsOf,
  SCORES,
  type Score,
  type Table,
} from '../../stats/tables.js';
import { counted, plural } from '../../util/counted.js';
import type { Pace } from '../../util/pace.js';
import { numbers, texts } from '../columns.js';
import type { TextTable } from '../report.js';
import {
  atLayer,
  type ExperimentLines,
  layersApart,
  layersOf,
  MAX_LAYERS,
  queriesOf,
  type Row,
  rowOf,
} from './lines.js';

const RANGES = 'Ranges: 95 % bootstrap intervals over items, seeds held fixed.';

/** The scores that a run has. */
export function scoresOf(test: readonly ResultLine[]): Score[] {
  const own = [...new Set(test.flatMap((line) => Object.keys(line.own ?? {})))].sort();
  return [...SCORES.filter((score) => test.some((line) => observationsOf([line], score).length > 0)), ...own];
}

/** Every condition in every task, with intervals. Conditions without this score (the majority row has no probability) are left out. */
export function scoreTable(
  experiment: Experiment,
  { test, rows, layers }: ExperimentLines,
  score: Score,
  notes: readonly string[],
  pace: Pace,
): Promise<Table> {
  const has = (name: string) =>
    observationsOf(
      test.filter(({ condition }) => condition === name),
      score,
    ).length > 0;
  const accuracy = ['lenient', 'strict', 'likelihood'].includes(score);
  const what = accuracy ? 'Accuracy' : score === 'probability' ? 'Probability' : 'Score';
  const options = {
    title: `${what} on ${queriesOf(experiment)} queries (${score} score)`,
    score,
    conditions: rows.map(({ name }) => name).filter(has),
    tasks: tasksOf(experiment, test),
    notes: [...notes, ...layerNotes(experiment, layers), ...(experiment.ignoreCase ? ['Case does not count.'] : [])],
  };
  return accuracyTable(test, options, pace);
}

/** Tasks as the lines name them (a file by its name), in the experiment's order as far as it has them. */
export function tasksOf({ tasks }: Experiment, lines: readonly ResultLine[]): string[] {
  const found = [...new Set(lines.map(({ task }) => task))];
  const place = (task: string) => {
    const index = tasks.findIndex((name) => name === task || parse(win32.basename(name)).name === task);
    return index < 0 ? tasks.length : index;
  };
  return found.sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1));
}

function layerNotes({ layers: chosen, conditions }: Experiment, layers: readonly number[]): string[] {
  if (layers.length === 0) return [];
  const kinds = new Set(conditions.filter(({ kind }) => kind === 'patch').map(kindOf)).size;
  const how =
    chosen === 'validation' ? `, chosen on validation items${kinds > 1 ? ' for each kind of vector' : ''}` : '';
  const note = `Patches at ${plural(layers.length, 'layer')} ${layers.join(', ')} (0-based block output)${how}.`;
  if (layers.length <= MAX_LAYERS) return [note];
  const left = 'no table of differences or of specifications by query, and no curve over examples';
  return [
    note,
    `These are more than ${MAX_LAYERS} layers, so there is ${left}: ask for fewer, such as layers: [3, 4].`,
  ];
}

/** The comparisons of an experiment under one score, layer by layer; none when it has nothing to compare, or too many layers. */
export async function differencesTable(
  experiment: Experiment,
  { test, rows, layers }: ExperimentLines,
  score: Score,
  pace: Pace,
): Promise<TextTable | undefined> {
  if (layers.length > MAX_LAYERS) return undefined;
  const comparisons = await compareConditions(test, pairsOfRows(experiment, rows), score, pace);
  if (comparisons.length === 0) return undefined;
  const least = Math.min(...comparisons.map(({ p }) => p));
  const tiny = least < 0.000005 ? ' 0.00000 is less than 0.000005.' : '';
  return {
    title: `Differences of conditions (${score} score)`,
    columns: [
      ...texts('Condition', 'minus'),
      ...numbers(3, 'difference', 'low', 'high'),
      ...numbers(5, 'p', 'p (Holm)'),
      ...numbers(0, 'n', 'items'),
    ],
    rows: comparisons.map(({ first, second, value, low, high, p, adjusted, n, items }: Comparison) => [
      first,
      second,
      value,
      low,
      high,
      p,
      adjusted,
      n,
      items,
    ]),
    notes: [
      'Mean over tasks, paired by query. low, high: 95 % bootstrap interval over items, seeds held fixed.',
      `p: two-sided paired permutation test over items; Holm: corrected for the ${counted(comparisons.length, 'comparison')} of this table.${tiny}`,
    ],
  };
}

/** A patch at one layer is compared with another one at the same layer, or at the only layer of each, and with what has none. */
function pairsOfRows(experiment: Experiment, rows: readonly Row[]): [first: string, second: string][] {
  const rowsOf = (condition: string) => rows.filter((row) => row.condition === condition);
  const single = (...conditions: string[]) => conditions.every((condition) => rowsOf(condition).length === 1);
  return pairsOf(experiment).flatMap(([first, second]) =>
    rowsOf(first).flatMap((a) =>
      rowsOf(second)
        .filter((b) => b.layer === undefined || b.layer === a.layer || single(first, second))
        .map((b): [string, string] => [a.name, b.name]),
    ),
  );
}

/** Specification by query: the mean over tasks of Prompt and Patch. For experiments with more than one kind of query. */
export async function matrixTable(
  experiment: Experiment,
  { test, rows: found }: ExperimentLines,
  score: Score,
  pace: Pace,
): Promise<Table | undefined> {
  const { conditions, query } = experiment;
  const plain = conditions.filter(isPlain);
  const layers = layersOf(found, plain);
  if (layers.length > MAX_LAYERS) return undefined;
  const queries = [...new Set(plain.map((condition) => condition.query ?? query))].sort();
  if (queries.length < 2) return undefined;
  const columns = queries.flatMap((one) => [
    { one, kind: 'prompt', layer: undefined, name: `${one} query, prompt` },
    ...layersApart(layers).map((layer) => {
      const name = `${one} query, patch`;
      return { one, kind: 'patch', layer, name: layer === undefined ? name : atLayer(name, layer) };
    }),
  ]);
  const specs = ['text', 'image', 'instruction', 'ensemble'] as const;
  const cellOf = (spec: Condition['spec'], { one, kind, layer }: (typeof columns)[number]): Cell | undefined => {
    const condition = plain.find((c) => c.kind === kind && c.spec === spec && (c.query ?? query) === one);
    const row = rowOf(found, condition?.name, layer);
    const own = observationsOf(
      test.filter((line) => line.condition === row?.name),
      score,
    );
    return own.length > 0 ? bootstrapInterval(own) : undefined;
  };
  const rows = await pace.map(specs, (spec) => ({
    label: spec,
    cells: columns.map((column) => cellOf(spec, column)),
  }));
  const names = columns.map(({ name }) => name);
  const filled = rows.filter(({ cells }) => cells.some((cell) => cell !== undefined));
  return {
    title: `Specification by query, mean over tasks (${score} score)`,
    corner: 'Specification',
    columns: names,
    rows: filled,
    notes: [RANGES, countNote(filled, names)],
  };
}

/** A condition that differs from others only in specification, query, and prompt or patch. */
export function isPlain(condition: Condition): boolean {
  const { kind, control, foreign, prompts, swaps, before, question, vector, op, strength, layers, steps } = condition;
  const changed = [vector, op, strength, layers, steps, control, prompts, before, question];
  if (foreign || swaps) return false;
  return (kind === 'prompt' || kind === 'patch') && changed.every((change) => change === undefined);
}

/** How far foreign vectors move what the model says next from what its own vectors make it say. */
export function divergenceTable({ test, rows }: ExperimentLines): TextTable | undefined {
  const measured = rows.flatMap(({ name: row }) => {
    const values = test.flatMap(({ condition, kl }) => (condition === row && kl !== undefined ? [kl] : []));
    return values.length > 0 ? [{ row, values: values.sort((a, b) => a - b) }] : [];
  });
  if (measured.length === 0) return undefined;
  return {
    title: 'KL divergence of the next token, foreign vector from own vector, nats',
    columns: [...texts('Condition'), ...numbers(4, 'mean', 'median', '95 %', 'largest'), ...numbers(0, 'n')],
    rows: measured.map(({ row, values }) => [
      row,
      mean(values),
      quantile(values, 0.5),
      quantile(values, 0.95),
      values.at(-1),
      values.length,
    ]),
    notes: [
      'The same query, patched at the same layer with the vector of the model itself and with that of the other one.',
    ],
  };
}

/** Vectors of instructions with letters swapped, next to the clean one. */
export async function noisyTable(
  experiment: Experiment,
  { test, rows }: ExperimentLines,
  score: Score,
  pace: Pace,
): Promise<Table | undefined> {
  const conditions = experiment.conditions
    .filter(({ kind, spec, control, foreign }) => kind === 'patch' && spec === 'instruction' && !control && !foreign)
    .sort((a, b) => (a.swaps ?? 0) - (b.swaps ?? 0));
  if (!conditions.some(({ name, swaps = 0 }) => swaps > 0 && rowOf(rows, name, undefined))) return undefined;
  const options = {
    title: `Vectors of noisy instructions on ${queriesOf(experiment)} queries (${score} score)`,
    score,
    conditions: conditions.flatMap(({ name }) =>
      rows.filter(({ condition }) => condition === name).map((row) => row.name),
    ),
    tasks: tasksOf(experiment, test),
    notes: ['Swaps of neighbouring letters in the instruction that the vector is read from.'],
  };
  return accuracyTable(test, options, pace);
}

/** Whom an answer follows when the query asks about something else. Only where the rival answer is known. */
export async function conflictTable(
  { ignoreCase }: Experiment,
  { test, rows }: ExperimentLines,
  score: Score,
  pace: Pace,
): Promise<Table | undefined> {
  if (score !== 'lenient' && score !== 'strict') return undefined;
  const asked = test.filter(({ rival, prompt }) => rival !== undefined && prompt !== undefined);
  if (asked.length === 0) return undefined;
  const patched = (line: ResultLine) => (score === 'lenient' ? line.lenient : line.strict === true);
  const local = ({ firstToken, answer, cut, rival = '' }: ResultLine) =>
    score === 'lenient'
      ? lenientMatch(firstToken, rival, { ignoreCase })
      : !cut && strictMatch(answer, rival, { ignoreCase });
  const columns = [
    { name: 'the task', of: patched },
    { name: 'the question in the query', of: local },
    { name: 'neither', of: (line: ResultLine) => !patched(line) && !local(line) },
  ];
  const names = columns.map(({ name }) => name);
  const labels = rows.map(({ name }) => name).filter((row) => asked.some(({ condition }) => condition === row));
  const counted = await pace.map(labels, (label) => {
    const own = asked.filter(({ condition }) => condition === label);
    const cells = columns.map(({ of }) =>
      bootstrapInterval(own.map((line) => ({ ...line, share: true, value: of(line) ? 1 : 0 }))),
    );
    return { label, cells };
  });
  return {
    title: `Whom the answer follows (${score} score)`,
    corner: 'Condition',
    columns: names,
    rows: counted,
    notes: [
      'Share of answers, mean over tasks. The task is what a patched vector carries; the question in the query asks for another fact about the same item.',
      'Only items whose two answers the lenient score can tell apart.',
      RANGES,
      countNote(counted, names),
    ],
  };
}
