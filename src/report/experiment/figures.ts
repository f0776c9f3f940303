import type { Condition, Experiment, ResultLine } from '../../experiment/types.js';
import { bootstrapInterval } from '../../stats/statistics.js';
import { observationsOf } from '../../stats/tables.js';
import { counted } from '../../util/counted.js';
import { groupBy } from '../../util/group.js';
import type { Pace } from '../../util/pace.js';
import type { Figure, Panel, Point, Series } from '../figures/figure.js';
import type { Block } from '../report.js';
import { type ExperimentLines, layersApart, layersOf, MAX_LAYERS, queriesOf, rowOf } from './lines.js';
import { isPlain, tasksOf } from './tables.js';

const RANGES = 'Bands: 95 % bootstrap intervals over items, seeds held fixed.';

/**
 * Accuracy by patched layer on validation items, or on test items where several layers were tested: a panel a task, and their mean.
 * Prompts, which the test asks too, are dotted. Text queries and image queries have figures of their own: together they have more curves than can be told apart.
 */
export async function sweepBlocks(
  experiment: Experiment,
  arranged: ExperimentLines,
  stage: 'validation' | 'test',
  pace: Pace,
): Promise<Block[]> {
  const all = stage === 'validation' ? arranged.validation : arranged.tested;
  const queryOf = (condition: Condition) => condition.query ?? experiment.query;
  const queries = [...new Set(experiment.conditions.map(queryOf))];
  const figures: Block[] = [];
  for (const query of queries) {
    const conditions = experiment.conditions.filter((condition) => queryOf(condition) === query);
    const names = new Set(conditions.map(({ name }) => name));
    const lines = all.filter(({ condition }) => names.has(condition));
    const blocks = await sweepOf({ ...experiment, query, conditions }, { ...arranged, lines }, stage, pace);
    const suffix = queries.length < 2 ? ['', ''] : [`-${query}`, `, ${query} queries`];
    figures.push(
      ...blocks.map((block) => ({ ...block, name: block.name + suffix[0], heading: block.heading + suffix[1] })),
    );
  }
  return figures;
}

async function sweepOf(
  experiment: Experiment,
  { lines, layers }: Pick<ExperimentLines, 'layers'> & { readonly lines: readonly ResultLine[] },
  stage: 'validation' | 'test',
  pace: Pace,
): Promise<Block[]> {
  const swept = lines.filter(({ layer }) => layer !== undefined);
  if (new Set(swept.map(({ layer }) => layer)).size < 2) return [];
  const found = experiment.conditions.filter(({ name }) => swept.some(({ condition }) => condition === name));
  const curves = found.filter((condition) => !isVariant(condition, found)).map(({ name }) => name);
  const prompts = experiment.conditions.filter(({ kind }) => kind === 'prompt').map(({ name }) => name);
  const chosen = stage === 'validation' && experiment.layers === 'validation' ? layers : [];
  const panel = async (title: string, own: readonly ResultLine[]): Promise<Panel> => {
    const byCondition = groupBy(own, ({ condition }) => condition);
    const series: Series[] = [];
    for (const label of curves) {
      const byLayer = [...groupBy(byCondition.get(label) ?? [], ({ layer }) => layer)].sort(
        ([a = 0], [b = 0]) => a - b,
      );
      const points = await pace.map(byLayer, ([x, some]) => (x === undefined ? [] : estimate(some, x)));
      series.push({ label, points: points.flat() });
    }
    return {
      title,
      series,
      baselines: baselinesOf(prompts, byCondition),
      verticals: chosen.map((x) => ({ label: `layer ${x}`, x })),
    };
  };
  const tasks = tasksOf(experiment, lines);
  const notes = {
    bands: `Lenient score on ${stage} items. ${RANGES}`,
    layer: 'Vertical line: the layer used for the test queries.',
    left: `Not drawn: ${counted(found.length - curves.length, 'condition')} with fewer prompts in the vector, another strength or a noisy instruction.`,
    best: 'The best layer of this figure would be chosen by the queries that judge it: its height is optimistic.',
  };
  const axes = { xLabel: 'layer (0-based block output)', yLabel: `${stage} accuracy` };
  const title = `Accuracy on ${queriesOf(experiment)} queries by patched layer`;
  const heading = `Layer sweep on ${stage} items`;
  const shown = [
    notes.bands,
    ...(chosen.length > 0 ? [notes.layer] : []),
    ...(stage === 'test' ? [notes.best] : []),
    ...(found.length > curves.length ? [notes.left] : []),
  ];
  const name = stage === 'validation' ? 'layer-sweep' : 'test-layers';
  const byTask = groupBy(lines, ({ task }) => task);
  const panels: Panel[] = [];
  for (const task of tasks) panels.push(await panel(task, byTask.get(task) ?? []));
  const figure: Figure = { title, ...axes, panels, notes: shown };
  const blocks: Block[] = [{ kind: 'curves', name, heading, figure }];
  if (tasks.length < 2) return blocks;
  const mean: Figure = {
    title: `${title}, mean over tasks`,
    ...axes,
    panels: [await panel('', lines)],
    notes: shown,
  };
  return [...blocks, { kind: 'curves', name: `${name}-mean`, heading: `${heading}, mean over tasks`, figure: mean }];
}

/** Whether a condition has another one's vector from fewer prompts, at another strength or with noise: too many curves cannot be read. */
function isVariant(condition: Condition, all: readonly Condition[]): boolean {
  const { spec, query, vector, prompts, swaps = 0 } = condition;
  const more = (other: Condition) => other.prompts === undefined || other.prompts > (prompts ?? 0);
  const fewer = all.some(
    (other) => other.spec === spec && other.query === query && other.vector === vector && more(other),
  );
  const [, ...others] = strengthsOf(all).flatMap((group) => (group.includes(condition) ? group : []));
  return swaps > 0 || (prompts !== undefined && fewer) || others.includes(condition);
}

/** Accuracy by number of examples that the vector was made of, a panel a layer: 0 is the instruction alone. */
export async function examplesBlocks(
  experiment: Experiment,
  { test, rows }: ExperimentLines,
  pace: Pace,
): Promise<Block[]> {
  const own = experiment.conditions.filter(
    ({ prompts: _, ...condition }) => condition.kind === 'patch' && isPlain(condition),
  );
  const layers = layersOf(rows, own);
  if (layers.length > MAX_LAYERS) return [];
  const byRow = groupBy(test, ({ condition }) => condition);
  const points = new Map<string, Point[]>();
  for (const condition of own) {
    const x = examplesOf(condition, experiment);
    const found = rows.filter((row) => row.condition === condition.name);
    await pace.map(found, ({ name }) => points.set(name, estimate(byRow.get(name) ?? [], x)));
  }
  const queries = [...new Set(own.map((condition) => condition.query ?? experiment.query))];
  const apart = queries.flatMap((query) => layersApart(layers).map((layer) => ({ query, layer })));
  const panels = apart.map(({ query, layer }): Panel => {
    const pointsOf = (conditions: readonly Condition[]) =>
      conditions
        .flatMap(({ name }) => points.get(rowOf(rows, name, layer)?.name ?? '') ?? [])
        .sort((a, b) => a.x - b.x);
    const asked = own.filter((condition) => (condition.query ?? experiment.query) === query);
    const of = (spec: Condition['spec']) => asked.filter((condition) => condition.spec === spec);
    const series = [
      { label: 'text examples', points: pointsOf(of('text')) },
      { label: 'image examples', points: pointsOf(of('image')) },
      {
        label: 'examples and instruction',
        points: of('ensemble').length > 0 ? pointsOf([...of('instruction'), ...of('ensemble')]) : [],
      },
    ].filter(({ points }) => new Set(points.map(({ x }) => x)).size > 1);
    const title = [
      ...(queries.length > 1 ? [`${query} queries`] : []),
      ...(layer === undefined ? [] : [`layer ${layer}`]),
    ];
    return { title: title.join(', '), series };
  });
  if (panels.every(({ series }) => series.length === 0)) return [];
  return [
    {
      kind: 'curves',
      name: 'examples-curve',
      heading: 'How many examples a vector takes',
      figure: {
        title: `Accuracy on ${queriesOf(experiment)} queries by examples in the vector`,
        xLabel: `examples (${experiment.shots} a prompt; 0: the instruction alone)`,
        yLabel: 'accuracy, mean over tasks',
        panels,
        notes: [`Lenient score. ${RANGES}`],
      },
    },
  ];
}

/** Accuracy by strength, where conditions differ in nothing else, a panel a layer: what a patch does as its vector grows. */
export async function strengthBlocks(
  experiment: Experiment,
  { test, rows }: ExperimentLines,
  pace: Pace,
): Promise<Block[]> {
  const groups = strengthsOf(experiment.conditions);
  const layers = layersOf(rows, groups.flat());
  if (groups.length === 0 || layers.length > MAX_LAYERS) return [];
  const byRow = groupBy(test, ({ condition }) => condition);
  const without = experiment.conditions.filter(({ kind }) => kind !== 'patch').map(({ name }) => name);
  const panels: Panel[] = [];
  for (const layer of layersApart(layers)) {
    const series: Series[] = [];
    for (const group of groups) {
      const points = await pace.map(group, ({ name, strength = experiment.strength }) =>
        estimate(byRow.get(rowOf(rows, name, layer)?.name ?? '') ?? [], strength),
      );
      series.push({ label: commonName(group), points: points.flat().sort((a, b) => a.x - b.x) });
    }
    panels.push({
      title: layer === undefined ? '' : `layer ${layer}`,
      series,
      baselines: baselinesOf(without, byRow),
    });
  }
  const title = `Accuracy on ${queriesOf(experiment)} queries by strength`;
  const axes = { xLabel: 'strength (factor on the vector)', yLabel: 'accuracy, mean over tasks' };
  const figure: Figure = { title, ...axes, panels, notes: [`Lenient score. ${RANGES}`] };
  return [{ kind: 'curves', name: 'strength-curve', heading: 'How strong a patch has to be', figure }];
}

/** Patches that differ in strength alone, where there are several. */
function strengthsOf(conditions: readonly Condition[]): Condition[][] {
  const patches = conditions.filter(({ kind }) => kind === 'patch');
  const alike = groupBy(patches, ({ name: _, strength: __, ...rest }) => JSON.stringify(Object.entries(rest).sort()));
  return [...alike.values()].filter((group) => group.length > 1);
}

/** What the names of conditions begin with, up to the strength. */
function commonName(group: readonly Condition[]): string {
  const [{ name: first }] = group as [Condition];
  const names = group.map(({ name }) => name);
  let end = first.length;
  while (!names.every((name) => name.startsWith(first.slice(0, end)))) end--;
  return first.slice(0, end).replace(/[\s,;:(]+(strength|×|x)?[\s=-]*$/, '') || first;
}

function examplesOf({ spec, prompts }: Condition, experiment: Experiment): number {
  return spec === 'instruction' ? 0 : experiment.shots * (prompts ?? experiment.prompts);
}

/** No point without a query. */
function estimate(lines: readonly ResultLine[], x: number): Point[] {
  const observations = observationsOf(lines, 'lenient');
  if (observations.length === 0) return [];
  const { value, low, high } = bootstrapInterval(observations);
  return [{ x, y: value, low, high }];
}

/** Heights of the conditions that were asked anything. */
function baselinesOf(conditions: readonly string[], byCondition: ReadonlyMap<string, readonly ResultLine[]>) {
  return conditions.flatMap((label) => estimate(byCondition.get(label) ?? [], 0).map(({ y }) => ({ label, y })));
}
