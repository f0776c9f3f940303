import { isTaskVector, pairsOf } from '../../experiment/comparisons.js';
import type { Condition, Experiment, ResultLine } from '../../experiment/types.js';
import type { Cell, Table } from '../../stats/tables.js';
import { numbers, texts } from '../columns.js';
import type { Bars, Block, TextTable } from '../report.js';
import { type ExperimentLines, MAX_LAYERS, queriesOf, type Row } from './lines.js';

/** A patch, and the prompt with the same specification, on the same queries. */
export interface EffectPair {
  readonly condition: Condition;
  readonly patch: Row;
  readonly prompt: Row;
}

/** What became of a query under a patch and a prompt. */
export const CELLS = ['only the patch right', 'only the prompt right', 'both right', 'neither right'] as const;
type CellName = (typeof CELLS)[number];

export interface PairedQuery {
  readonly cell: CellName;
  readonly patch: ResultLine;
}

/**
 * What an experiment is about: a patch next to the prompt with the same specification, at each layer that was tested. Chosen by the
 * config alone, whatever came out: the model's own vectors, another modality than the query's and text examples go first.
 */
export function effectPairs(experiment: Experiment, { rows, layers }: ExperimentLines): EffectPair[] {
  if (layers.length > MAX_LAYERS) return [];
  const conditionOf = (name: string) => experiment.conditions.find((one) => one.name === name) as Condition;
  const pairs = pairsOf(experiment)
    .map(([first, second]) => ({ condition: conditionOf(first), other: conditionOf(second) }))
    .filter(({ other }) => other.kind === 'prompt');
  const rank = ({ spec, query = experiment.query, foreign, prompts, swaps, vector }: Condition) =>
    16 * Number(vector !== undefined) +
    8 * Number(foreign === true) +
    4 * Number(prompts !== undefined || (swaps ?? 0) > 0) +
    2 * Number(spec === query) +
    Number(spec !== 'text');
  const [best] = pairs.sort((a, b) => rank(a.condition) - rank(b.condition));
  const prompt = rows.find(({ condition }) => condition === best?.other.name);
  if (best === undefined || prompt === undefined) return [];
  const patched = rows.filter(({ condition }) => condition === best.condition.name);
  return patched.map((patch) => ({ condition: best.condition, patch, prompt }));
}

/** The queries that both conditions answered, by the strict score, in the order of the lines. */
export function pairedQueries({ patch, prompt }: EffectPair, test: readonly ResultLine[]): PairedQuery[] {
  const key = ({ task, seed, item }: ResultLine) => JSON.stringify([task, seed, item]);
  const prompted = new Map(test.flatMap((line) => (line.condition === prompt.name ? [[key(line), line]] : [])));
  return test.flatMap((line) => {
    const other = line.condition === patch.name ? prompted.get(key(line)) : undefined;
    if (other?.strict === undefined || line.strict === undefined) return [];
    const [both, one] = [line.strict && other.strict, line.strict ? CELLS[0] : CELLS[1]];
    return [{ cell: both ? CELLS[2] : line.strict || other.strict ? one : CELLS[3], patch: line }];
  });
}

/** How often both are right, one of them, or none: two rows by two columns, with their sums. */
export function pairTable({ patch, prompt }: EffectPair, queries: readonly PairedQuery[]): TextTable {
  const count = (cell: CellName) => queries.filter((query) => query.cell === cell).length;
  const [onlyPatch, onlyPrompt, both, neither] = CELLS.map(count) as [number, number, number, number];
  return {
    title: `${patch.name} and ${prompt.name} on the same queries (strict score)`,
    columns: [...texts(''), ...numbers(0, `${prompt.name} right`, `${prompt.name} wrong`, 'all')],
    rows: [
      [`${patch.name} right`, both, onlyPatch, both + onlyPatch],
      [`${patch.name} wrong`, onlyPrompt, neither, onlyPrompt + neither],
      ['all', both + onlyPrompt, onlyPatch + neither, queries.length],
    ],
    notes: ['Counts of the test queries that both answered, all tasks and seeds together.'],
  };
}

const KINDS = { majority: 'without a task', bare: 'without a task', prompt: 'prompt', patch: 'patch' } as const;

/** Every condition with its interval: the mean over tasks of a table of scores. Nothing where too many layers were patched. */
export function conditionBars(experiment: Experiment, { rows, layers }: ExperimentLines, table: Table): Block[] {
  if (layers.length > MAX_LAYERS) return [];
  const kindOf = ({ condition }: Row) => {
    const { kind, control } = experiment.conditions.find(({ name }) => name === condition) as Condition;
    return control === undefined ? KINDS[kind] : 'control';
  };
  const bars = rows.flatMap((row): Bars['bars'] => {
    const mean = meanOf(table, row.name);
    return mean ? [{ label: row.name, group: kindOf(row), value: mean.value, low: mean.low, high: mean.high }] : [];
  });
  if (bars.length === 0) return [];
  const nTasks = table.columns.length - 1;
  const over = nTasks === 1 ? `task ${table.columns[0]}` : `mean over ${nTasks} tasks`;
  const chart: Bars = {
    title: `Accuracy on ${queriesOf(experiment)} queries`,
    xLabel: `strict score, ${over}`,
    bars,
    groupOrder: ['prompt', 'patch', 'without a task', 'control'],
    notes: ['Lines: 95 % bootstrap intervals over items, seeds held fixed.'],
  };
  return [{ kind: 'bars', name: 'conditions', heading: 'Accuracy of every condition', bars: chart }];
}

const VECTORS = {
  text: ['a vector of text examples', 'text examples'],
  image: ['a vector of image examples', 'image examples'],
  instruction: ['the vector of the instruction', 'the instruction'],
  ensemble: ['the mean vector of examples and instruction', 'both'],
} as const;

/** The effect in one sentence; undefined where the two conditions have no mean in the table. */
export function effectSentence(
  experiment: Experiment,
  { condition, patch, prompt }: EffectPair,
  table: Table,
): string | undefined {
  const query = condition.query ?? experiment.query;
  const [patched, prompted] = [meanOf(table, patch.name), meanOf(table, prompt.name)];
  if (patched === undefined || prompted === undefined) return undefined;
  const [vector, examples] = VECTORS[condition.spec ?? 'text'];
  // Another vector than a task's, or one of another model, is best known by its name.
  const known = isTaskVector(condition);
  const plain = experiment.conditions.find((one) => one.kind === 'bare' && (one.query ?? experiment.query) === query);
  const alone = plain && meanOf(table, plain.name);
  return [
    `With ${known ? vector : `the vector of ${condition.name}`} patched in at layer ${patch.layer}, the model answers ${share(patched)} of ${query} queries right`,
    known ? `with ${examples} in the prompt ${share(prompted)}` : `with ${prompt.name} ${share(prompted)}`,
    ...(alone ? [`with the query alone ${share(alone)}`] : []),
  ]
    .join(', ')
    .concat('.');
}

/** The same in a few words, for lists of runs. */
export function effectHeadline({ patch, prompt }: EffectPair, table: Table): string | undefined {
  const [patched, prompted] = [meanOf(table, patch.name), meanOf(table, prompt.name)];
  return patched && prompted && `${patch.name} ${share(patched)}, ${prompt.name} ${share(prompted)}`;
}

function meanOf({ rows }: Table, label: string): Cell | undefined {
  return rows.find((row) => row.label === label)?.cells.at(-1);
}

/** `55 % [52, 58]`; a decimal where a whole number would say too little. */
function share({ value, low, high }: Cell): string {
  const digits = value > 0 && value < 0.095 ? 1 : 0;
  const [at, from, to] = [value, low, high].map((part) => (100 * part).toFixed(digits));
  return `${at} % [${from}, ${to}]`;
}
