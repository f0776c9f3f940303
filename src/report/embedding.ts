import {
  type EmbeddedPrompt,
  type EmbeddingOptions,
  type EmbeddingPart,
  type EmbeddingResult,
  type EmbeddingSpace,
  embeddingOf,
  embeddingUnits,
  MEASURES,
} from '../studies/embedding.js';
import { counted } from '../util/counted.js';
import { numbers, texts } from './columns.js';
import type { Figure } from './figures/figure.js';
import type { Scatter, TextTable } from './report.js';
import { type StudyKind, studyReport } from './study-kind.js';

/** Tasks with a colour of their own where not all can have one: one fewer than a scatter plot has. */
const COLOURED = 15;

/** The study in the folder of a run. */
export const embedding: StudyKind<EmbeddingOptions, EmbeddingPart> = {
  units: embeddingUnits,
  report: (parts, _, about) => {
    const result = embeddingOf(parts);
    return studyReport(about, embeddingStatements(result), [
      {
        kind: 'scatter',
        name: 'tsne',
        heading: 't-SNE',
        scatter: scatter(
          result,
          't-SNE of prompts',
          ({ tsne }) => tsne,
          (_, axis) => `t-SNE ${axis + 1}`,
          ['Only neighbourhoods are meaningful, not the sizes of clusters or the distances between them.'],
        ),
      },
      {
        kind: 'scatter',
        name: 'pca',
        heading: 'Principal components',
        scatter: scatter(
          result,
          'Principal components of prompts',
          ({ pca }) => pca.points,
          ({ pca }, axis) => `PC ${axis + 1} (${Math.round(100 * (pca.explained[axis] ?? 0))} % of the variance)`,
        ),
      },
      {
        kind: 'table',
        name: 'scores',
        heading: 'How far prompts cluster by task and by modality',
        table: scoresTable(result),
      },
      { kind: 'curves', name: 'layers', heading: 'Last delimiters at every layer', figure: layersFigure(result) },
    ]);
  },
};

const nameOf = ({ of, layer }: Pick<EmbeddingSpace, 'of' | 'layer'>): string =>
  `${of === 'context' ? 'contexts' : 'last delimiters'}, layer ${layer}`;

/** What the run shows, in sentences computed from it. */
export function embeddingStatements({ spaces }: EmbeddingResult): string[] {
  return spaces.flatMap((space) => {
    const { scores } = space;
    const [task, modality] = [scores['silhouette by task'], scores['silhouette by modality']];
    if (!task || !modality) return [];
    const apart = task.low > modality.high || modality.low > task.high;
    const verdict = apart
      ? `more by ${task.value > modality.value ? 'task' : 'modality'}`
      : 'no more by one than by the other';
    return [
      `${nameOf(space)} cluster ${verdict}: silhouette by task ${withInterval(task)}, by modality ${withInterval(modality)}.`.replace(
        /^./,
        (letter) => letter.toUpperCase(),
      ),
    ];
  });
}

const withInterval = ({ value, low, high }: { value: number; low: number; high: number }) =>
  `${value.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;

/** A row a space and measure, with its interval and what chance gives. */
export function scoresTable({ spaces, prompts, neighbours }: EmbeddingResult): TextTable {
  return {
    title: 'Cluster scores',
    columns: [...texts('points', 'measure'), ...numbers(3, 'score', 'low', 'high', 'chance', 'chance, 97.5 %', 'p')],
    rows: spaces.flatMap((space) =>
      MEASURES.flatMap(({ name }) => {
        const score = space.scores[name];
        if (!score) return [];
        const { value, low, high, chance } = score;
        return [[nameOf(space), name, value, low, high, chance.mean, chance.high, chance.p]];
      }),
    ),
    notes: [
      `${counted(prompts.length, 'point')}. Euclidean distances between states after the final norm, in all dimensions, not in the picture.`,
      'Silhouette (Rousseeuw 1987): -1 to 1, 0 where clusters touch.',
      `Neighbours: share of the ${neighbours} nearest other points with the same label; "in the other modality": of the ${neighbours} nearest points of the other modality.`,
      'Low and high: 95 % bootstrap interval of the mean over points, whole items resampled, distances kept (where the neighbours of all points are alike, Wilson with one trial an item). Chance: 200 permutations of the labels; p is the share that scores at least as high.',
      'Context: mean over all positions before the last delimiter, with template, examples and answers.',
    ],
  };
}

function scatter(
  { spaces, prompts }: EmbeddingResult,
  title: string,
  points: (space: EmbeddingSpace) => readonly (readonly [number, number])[],
  axis: (space: EmbeddingSpace, axis: 0 | 1) => string,
  notes: readonly string[] = [],
): Scatter {
  const tasks = [...new Set(prompts.map(({ task }) => task))];
  const shown = new Set(tasks.length > COLOURED + 1 ? tasks.slice(0, COLOURED) : tasks);
  const others = tasks.length - shown.size;
  return {
    title,
    panels: spaces.map((space) => ({
      title: nameOf(space),
      xLabel: axis(space, 0),
      yLabel: axis(space, 1),
      points: points(space).map(([x, y], i) => {
        const { task, modality, examples } = prompts[i] as EmbeddedPrompt;
        const colour = shown.has(task) ? task : 'other tasks';
        return { x, y, colour, shape: modality, label: `${task}, ${modality}: ${examples.join(', ')}` };
      }),
    })),
    notes: [...notes, ...(others > 0 ? [`The last ${others} tasks share a colour: no more can be told apart.`] : [])],
  };
}

function layersFigure({ byLayer, neighbours }: EmbeddingResult): Figure {
  const panel = (title: string, word: string) => ({
    title,
    series: MEASURES.filter(({ name }) => name.startsWith(word) && byLayer[name]).map(({ name }) => ({
      label: name,
      points: (byLayer[name] ?? []).map(({ value, low, high }, layer) => ({ x: layer, y: value, low, high })),
    })),
  });
  const panels = [panel('Silhouette', 'silhouette'), panel(`${neighbours} nearest neighbours`, 'neighbours')];
  const lowest = Math.min(
    0,
    ...panels.flatMap(({ series }) => series.flatMap(({ points }) => points.map((p) => p.low))),
  );
  return {
    title: 'Clusters of last delimiters, layer by layer',
    xLabel: 'layer (0-based block output)',
    yLabel: 'score',
    yRange: [Math.floor(lowest * 5) / 5, 1],
    panels,
    notes: ['Mean over points with 95 % bootstrap bands; see the table of scores for what chance gives.'],
  };
}
