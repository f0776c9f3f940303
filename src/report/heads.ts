import { type Measured, type Measurements, type Overlap, topOverlap } from '../stats/overlap.js';
import { bootstrapInterval, differenceInterval, mean } from '../stats/statistics.js';
import { type HeadsCell, type HeadsOptions, headsUnits, type ModalityHeads } from '../studies/heads.js';
import { numbers, texts, within } from './columns.js';
import type { Panel, Series } from './figures/figure.js';
import type { TextTable } from './report.js';
import type { StudyKind } from './study-kind.js';

/** The study in the folder of a run. */
export const heads: StudyKind<HeadsOptions, HeadsCell> = {
  units: headsUnits,
  report: (cells, options, { title, notes, provenance }) => {
    const overlap = overlapTable(cells, options);
    return {
      title,
      introduction: [
        'The effect of a head is how much its mean state over prompts of a task raises the right answer’s probability in prompts whose labels are shuffled (Todd et al. 2024). A knock-out hides the picture of the query, or the examples, from its last token in one layer.',
      ],
      caveats: notes,
      headline: headlineOf(overlap),
      blocks: [
        { kind: 'table', name: 'overlap', heading: 'Do text and image examples use the same heads?', table: overlap },
        { kind: 'curves', name: 'knock-out', heading: 'What the last token has to see', figure: knockOutFigure(cells) },
        { kind: 'table', name: 'edges', heading: 'Where it sees it', table: edgesTable(cells) },
        { kind: 'table', name: 'heads', heading: 'The best heads', table: headsTable(cells, options) },
      ],
      provenance,
    };
  },
};

const TOP = 10;

const effectsOf = ({ modalities }: Pick<HeadsCell, 'modalities'>, modality: string): Measurements =>
  modalities.find((one) => one.modality === modality)?.effects ?? [];

/** By task, over all of them, and what other tasks have in common. */
export function overlapTable(cells: readonly HeadsCell[], { top = TOP, prompts = 10 }: HeadsOptions): TextTable {
  const side = ({ items, domain, ...cell }: HeadsCell, modality: string): Measured => ({
    values: effectsOf(cell, modality),
    items,
    domain,
  });
  const pair = (text: HeadsCell, image: HeadsCell) => [side(text, 'text'), side(image, 'image')] as const;
  const nHeads = cells[0]?.heads.length ?? 0;
  const n = Math.min(top, nHeads);
  const row = (name: string, { value, low, high, chance, p }: Overlap) => [name, value, low, high, chance, p];
  const rows = cells.map((cell) => row(cell.task, topOverlap([pair(cell, cell)], n)));
  const other = cells.map((cell, i) => pair(cell, cells[(i + 1) % cells.length] as HeadsCell));
  if (cells.length > 1) {
    const own = cells.map((cell) => pair(cell, cell));
    rows.push(row('all tasks', topOverlap(own, n)));
    rows.push(row('text of a task, pictures of the next', topOverlap(other, n)));
  }
  return {
    title: `Heads among the best ${n} of ${nHeads} both of text and of image examples`,
    columns: [...texts('task'), ...numbers(2, 'in both', 'low', 'high', 'by chance'), ...numbers(4, 'p')],
    rows,
    notes: [
      `low, high: in both ± 1.96 bootstrap standard errors, over the items of ${prompts} prompts a task, which are the same in text and in pictures. p: share of random orders of the heads, one for all tasks, that overlap as much.`,
    ],
  };
}

function headlineOf({ rows }: TextTable): string {
  const all = rows.find(([name]) => name === 'all tasks') ?? rows[0] ?? [];
  const [, value, low, high, chance] = all as [string, number, number, number, number];
  return `${value.toFixed(1)} [${low.toFixed(1)}, ${high.toFixed(1)}] of the best heads in both, ${chance.toFixed(1)} by chance`;
}

/** The heads with the largest effect, mean over tasks and modalities. */
export function headsTable(cells: readonly HeadsCell[], { top = TOP }: HeadsOptions): TextTable {
  const means = (modality: string, head: number) =>
    mean(cells.map((cell) => mean(effectsOf(cell, modality).map((prompt) => prompt[head] as number))));
  const rows = (cells[0]?.heads ?? []).map(({ layer, head }, i) => [layer, head, means('text', i), means('image', i)]);
  const size = ([, , text, image]: readonly number[]) => (text as number) + (image as number);
  return {
    title: 'Effect of a head on the right answer’s probability, mean over tasks',
    columns: [...numbers(0, 'layer', 'head'), ...numbers(4, 'text examples', 'image examples')],
    rows: rows.sort((a, b) => size(b) - size(a)).slice(0, top),
    notes: ['The largest sums first.'],
  };
}

/** Probability of the right answer by the layer whose edges are cut: a panel for each modality of the examples. */
function knockOutFigure(cells: readonly HeadsCell[]) {
  const panels = (['text', 'image'] as const).map((modality): Panel => {
    const found = cells.flatMap(({ modalities, ...cell }) =>
      modalities.filter((one) => one.modality === modality).map((one) => ({ ...cell, ...one })),
    );
    const series = (label: string, of: (one: ModalityHeads) => Measurements): Series => ({
      label,
      points: (found[0] ? of(found[0]) : []).map((_, x) => {
        const values = found.flatMap(({ task, domain, items, ...one }) =>
          (of(one)[x] ?? []).map((value, i) => ({
            task,
            domain,
            seed: 1,
            item: items[i] as string,
            share: true,
            value,
          })),
        );
        const { value: y, low, high } = bootstrapInterval(values);
        return { x, y, low, high };
      }),
    });
    return {
      title: `${modality} examples`,
      series: [
        series('without the picture', (one) => one.withoutPicture),
        series('without the examples', (one) => one.withoutExamples),
      ],
      baselines: [{ label: 'all edges', y: mean(found.map(({ plain }) => mean(plain))) }],
    };
  });
  const drawn = panels.flatMap(({ series, baselines = [] }) => [
    ...series.flatMap(({ points }) => points.map(({ y, high = y }) => high)),
    ...baselines.map(({ y }) => y),
  ]);
  return {
    title: 'Answers to picture queries whose last token is blind in one layer',
    yRange: [0, Math.max(0.01, ...drawn)] as const,
    xLabel: 'layer',
    yLabel: 'probability of the answer',
    panels,
    notes: ['Mean over tasks. Bands: 95 % bootstrap intervals over items.'],
  };
}

/** For each task the layer in which its answers lose most. */
export function edgesTable(cells: readonly HeadsCell[]): TextTable {
  const rows = cells.flatMap(({ task, modalities }) =>
    modalities.map((one) => [
      task,
      one.modality,
      mean(one.plain),
      ...largestLoss(one.plain, one.withoutPicture),
      ...largestLoss(one.plain, one.withoutExamples),
    ]),
  );
  const loss = (what: string) => [...numbers(0, `${what}: layer`), ...within(what, numbers(3, 'loses', 'low', 'high'))];
  return {
    title:
      'Probability of the right answer, and what it loses where the last token does not see the picture or the examples',
    columns: [...texts('task', 'examples'), ...numbers(3, 'probability'), ...loss('picture'), ...loss('examples')],
    rows,
    notes: [
      'The layer is the one with the largest loss, chosen by the numbers shown, which are optimistic by that; low, high: 95 % bootstrap interval over prompts.',
    ],
  };
}

function largestLoss(plain: readonly number[], without: Measurements): [number, number, number, number] {
  const losses = without.map((values) => values.map((value, i) => (plain[i] as number) - value));
  const layer = losses.reduce((best, one, l) => (mean(one) > mean(losses[best] as number[]) ? l : best), 0);
  const observed = (values: readonly number[]) =>
    values.map((value, i) => ({ task: '', seed: 1, item: `${i}`, share: true, value }));
  const { value, low, high } = differenceInterval(observed(plain), observed(without[layer] ?? []));
  return [layer, value, low, high];
}
