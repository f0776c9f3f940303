import { twinOf } from '../../experiment/divergence.js';
import type { Experiment, ResultLine, RunStore } from '../../experiment/types.js';
import { mean } from '../../stats/statistics.js';
import { largest, smallest } from '../../util/extremes.js';
import type { TaskVector } from '../../vectors/task-vector.js';
import { numbers, within } from '../columns.js';
import type { Block } from '../report.js';

/** Vectors of one task and seed, read from the model itself and from the other one. */
interface VectorPair {
  readonly task: string;
  readonly seed: number;
  readonly own: TaskVector;
  readonly foreign: TaskVector;
}

/** Cosine similarities at one layer: of vectors of one task, and of vectors of two tasks (the random row). */
interface CosineLayer {
  readonly layer: number;
  readonly matched: readonly number[];
  readonly mismatched: readonly number[];
}

/** Cosines between the vectors of two models, layer by layer; mismatched are all pairs of two tasks under one seed. */
function cosineByLayer(pairs: readonly VectorPair[]): CosineLayer[] {
  const layers = pairs[0]?.own.info.layers ?? [];
  const finite = (values: readonly (number | undefined)[]) =>
    values.flatMap((x) => (Number.isFinite(x) ? [x as number] : []));
  const matched = pairs.map(({ own, foreign }) => own.cosine(foreign));
  const mismatched = pairs.flatMap(({ own, task, seed }) =>
    pairs.filter((other) => other.seed === seed && other.task !== task).map(({ foreign }) => own.cosine(foreign)),
  );
  return layers.map((layer, row) => ({
    layer,
    matched: finite(matched.map((values) => values[row])),
    mismatched: finite(mismatched.map((values) => values[row])),
  }));
}

/**
 * The blocks of an experiment that patches another model's vectors: cosine similarity of the two models' vectors by layer.
 *
 * @param load gives a vector of the run by the name that its lines have
 */
export async function cosineBlocks(
  { conditions }: Experiment,
  tested: readonly ResultLine[],
  load: RunStore['loadVector'],
): Promise<Block[]> {
  const foreign = conditions.filter((c) => c.kind === 'patch' && c.foreign === true && c.control === undefined);
  const blocks: Block[] = [];
  for (const condition of foreign) {
    const own = twinOf(conditions, condition);
    const named = (name: string | undefined) => namesOf(tested.filter((line) => line.condition === name));
    const [ours, theirs] = [named(own?.name), named(condition.name)];
    const pairs: VectorPair[] = [];
    for (const [key, { task, seed, vector }] of theirs) {
      const [a, b] = [await loadNamed(load, ours.get(key)?.vector), await loadNamed(load, vector)];
      if (a && b) pairs.push({ task, seed, own: a, foreign: b });
    }
    const suffix = blocks.length > 0 ? `-${blocks.length / 2 + 1}` : '';
    if (pairs.length > 0) blocks.push(...blocksOf(condition.name, suffix, cosineByLayer(pairs)));
  }
  return blocks;
}

function loadNamed(load: RunStore['loadVector'], name: string | undefined): Promise<TaskVector | undefined> {
  return name === undefined ? Promise.resolve(undefined) : load(name);
}

/** The vector of each task and seed. */
function namesOf(
  lines: readonly ResultLine[],
): Map<string, { task: string; seed: number; vector: string | undefined }> {
  return new Map(lines.map(({ task, seed, vector }) => [JSON.stringify([task, seed]), { task, seed, vector }]));
}

function blocksOf(condition: string, suffix: string, layers: readonly CosineLayer[]): Block[] {
  const title = `Cosine similarity of own and foreign vectors (${condition})`;
  const notes = [
    'Same task: vectors of one task and seed, one from each model. Mismatched: all pairs of two different tasks under one seed, what vectors have in common without the task (the random row).',
  ];
  const curve = (label: string, key: 'matched' | 'mismatched') => ({
    label,
    points: layers.flatMap((at) =>
      at[key].length > 0 ? [{ x: at.layer, y: mean(at[key]), low: smallest(at[key]), high: largest(at[key]) }] : [],
    ),
  });
  const series = [curve('same task', 'matched'), curve('mismatched tasks', 'mismatched')];
  const lowest = Math.min(0, ...series.flatMap(({ points }) => points.map(({ low }) => low)));
  const cells = (values: readonly number[]) =>
    values.length > 0
      ? [mean(values), smallest(values), largest(values), values.length]
      : [undefined, undefined, undefined, 0];
  const columns = (what: string) => [
    ...numbers(4, what),
    ...within(what, [...numbers(4, 'least', 'most'), ...numbers(0, 'n')]),
  ];
  return [
    {
      kind: 'curves',
      name: `cosine-layers${suffix}`,
      heading: `Cosine similarity by layer: ${condition}`,
      figure: {
        title,
        xLabel: 'layer (0-based block output)',
        yLabel: 'cosine similarity',
        yRange: [lowest, 1],
        panels: [{ title: '', series }],
        notes: [...notes, 'Bands: smallest to largest.'],
      },
    },
    {
      kind: 'table',
      name: `cosine${suffix}`,
      heading: `Cosine similarity: ${condition}`,
      table: {
        title,
        columns: [...numbers(0, 'layer'), ...columns('same task'), ...columns('mismatched')],
        rows: layers.map(({ layer, matched, mismatched }) => [layer, ...cells(matched), ...cells(mismatched)]),
        notes: [...notes, 'n: pairs of vectors.'],
      },
    },
  ];
}
