import { type Condition, type Experiment, keyOf, type ResultLine } from '../../experiment/types.js';
import { Random } from '../../util/random.js';

/** The lines of a run, those of the test in an order of their own: no table may depend on how a run was cut or merged. */
export interface ExperimentLines {
  readonly validation: readonly ResultLine[];
  /** Lines of the test as they are. */
  readonly tested: readonly ResultLine[];
  /** One line a condition, task, seed and item: where a condition was patched at several layers, its name says which. */
  readonly test: readonly ResultLine[];
  /** What `test` has, in the experiment's order. */
  readonly rows: readonly Row[];
  /** Layers that patches were written at in the test, rising. */
  readonly layers: readonly number[];
}

/** A condition, at one layer where it patches. */
export interface Row {
  /** As the lines of `test` name it. */
  readonly name: string;
  readonly condition: string;
  readonly layer?: number | undefined;
}

/** More patched layers than these are a sweep: comparisons of all of them would be a table that nobody reads. */
export const MAX_LAYERS = 5;

export function arrange(experiment: Experiment, lines: readonly ResultLine[]): ExperimentLines {
  // The order that `splitTask` gives to items: any other would do, if only it does not look at answers.
  const order = new Map<string, number>();
  const rank = ({ seed, item }: ResultLine) => {
    const key = `${seed} ${item}`;
    if (!order.has(key)) order.set(key, new Random(seed, 'split', item).uniform());
    return order.get(key) as number;
  };
  const tested = lines
    .filter(({ stage }) => stage === 'test')
    .map((line) => ({ line, rank: rank(line), key: keyOf(line) }))
    .sort((a, b) => a.rank - b.rank || (a.key < b.key ? -1 : 1))
    .map(({ line }) => line);
  const layersOf = (condition: Condition) => {
    const own = tested.filter((line) => line.condition === condition.name);
    return [...new Set(own.flatMap(({ layer }) => layer ?? []))].sort((a, b) => a - b);
  };
  const rows: Row[] = [];
  const test: ResultLine[] = [];
  const layers = new Set<number>();
  for (const condition of experiment.conditions) {
    const own = tested.filter((line) => line.condition === condition.name);
    const at = layersOf(condition);
    for (const layer of at) layers.add(layer);
    if (own.length === 0) continue;
    if (at.length < 2) {
      rows.push({ name: condition.name, condition: condition.name, layer: at[0] });
      for (const line of own) test.push(line); // more than arguments of a function can be
      continue;
    }
    for (const layer of at) {
      const name = atLayer(condition.name, layer);
      rows.push({ name, condition: condition.name, layer });
      for (const line of own) if (line.layer === layer) test.push({ ...line, condition: name });
    }
  }
  return {
    validation: lines.filter(({ stage }) => stage === 'validation'),
    tested,
    test,
    rows,
    layers: [...layers].sort((a, b) => a - b),
  };
}

/** The name of a condition that was tested at several layers, at one of them. */
export function atLayer(condition: string, layer: number | ''): string {
  return `${condition}, layer ${layer}`;
}

/** What a table or figure is made for by itself: each layer where there are several, undefined for the only one. */
export function layersApart(layers: readonly number[]): (number | undefined)[] {
  return layers.length > 1 ? [...layers] : [undefined];
}

/** Layers that some conditions were patched at, rising. */
export function layersOf(rows: readonly Row[], conditions: readonly Condition[]): number[] {
  const own = rows.filter(({ condition }) => conditions.some(({ name }) => name === condition));
  return [...new Set(own.flatMap(({ layer }) => layer ?? []))].sort((a, b) => a - b);
}

/** The row of a condition, at a layer or at its only one. */
export function rowOf(rows: readonly Row[], condition: string | undefined, layer: number | undefined): Row | undefined {
  return rows.find((row) => row.condition === condition && (layer === undefined || row.layer === layer));
}

/** What the queries of some conditions are, for titles: `image`, `text`, or both. */
export function queriesOf({ conditions, query }: Experiment): string {
  return [...new Set(conditions.map((condition) => condition.query ?? query))].sort().join(' and ');
}
