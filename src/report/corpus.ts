import type { Corpus } from '../corpus/corpus.js';
import type { CorpusPrompt } from '../corpus/corpus-file.js';
import type { CorpusSummary, LayerSummary } from '../studies/corpus-summary.js';
import { counted } from '../util/counted.js';
import { numbers, texts } from './columns.js';
import type { Figure, Panel } from './figures/figure.js';
import type { Block, Report, Scatter, TextTable } from './report.js';
import { visibleText } from './visible.js';

/** Values that have colours of their own among the principal components. */
const COLOURED = 10;
const OTHER = 'other';

/** The report of a corpus: what is in it, how states lie at each layer, and which layers a label can be read from. */
export function corpusReport(
  { manifest, length }: Corpus,
  summary: CorpusSummary,
  about: Pick<Report, 'title' | 'provenance'>,
): Report {
  const { label, sample } = summary;
  const states = manifest.shards.reduce((sum, { rows }) => sum + rows, 0);
  const seen = new Set(sample.map(({ index }) => index)).size;
  const blocks: Block[] = [
    { kind: 'curves', name: 'norms', heading: 'How long states are', figure: normsFigure(summary) },
    { kind: 'table', name: 'layers', heading: 'Layer by layer', table: layersTable(summary) },
  ];
  const pca = componentsScatter(summary);
  if (pca) blocks.unshift({ kind: 'scatter', name: 'pca', heading: 'Principal components', scatter: pca });
  if (label) {
    blocks.unshift({
      kind: 'curves',
      name: 'probe',
      heading: 'Where the label can be read',
      figure: probeFigure(summary),
    });
    blocks.push({ kind: 'table', name: 'labels', heading: 'Labels', table: labelsTable(label), detail: true });
  }
  return {
    ...about,
    headline: label && headlineOf(summary, label),
    introduction: [
      `${counted(length, 'prompt')}, ${counted(states, 'state')} at ${manifest.hooks.join(', ')}, ${counted(manifest.layers.length, 'layer')}. Looked at: ${counted(sample.length, 'state')} of ${counted(seen, 'prompt')}, drawn by seed.`,
    ],
    blocks,
  };
}

/** A row for each hook and layer. */
export function layersTable({ hooks, label }: CorpusSummary): TextTable {
  const probed = label ? ['accuracy', 'low', 'high', 'shuffled labels'] : [];
  return {
    title: `States layer by layer${label ? `, and ${visibleText(label.field)} read from them` : ''}`,
    columns: [
      ...texts('hook'),
      ...numbers(0, 'layer'),
      ...numbers(2, 'norm', '5 %', '95 %'),
      ...numbers(3, 'cosine', ...probed),
    ],
    rows: hooks.flatMap(({ hook, layers }) =>
      layers.map(({ layer, norm, cosine, probe }) => [
        hook,
        layer,
        norm.median,
        norm.low,
        norm.high,
        cosine,
        ...(probe ? [probe.accuracy.value, probe.accuracy.low, probe.accuracy.high, probe.shuffled.value] : []),
      ]),
    ),
    notes: [
      'norm: median Euclidean length of a state, with what 5 % and 95 % of them are below. cosine: mean over pairs of states; 1 where all point one way.',
      ...(label ? probeNotes(label) : []),
    ],
  };
}

const probeNotes = ({ majority, without }: NonNullable<CorpusSummary['label']>): string[] => [
  'accuracy: share of states that a linear probe labels rightly, in prompts that it has not seen: five folds, the ridge penalty chosen in the other four. low, high: 95 % bootstrap interval over prompts.',
  `The most frequent label alone: ${majority.toFixed(3)}. shuffled labels: the same probe, taught labels that were dealt anew to the prompts.`,
  ...(without > 0
    ? [`Left out: ${counted(without, 'prompt')} with no label, or with one that fewer than five have.`]
    : []),
];

function headlineOf({ hooks }: CorpusSummary, { field, majority }: NonNullable<CorpusSummary['label']>): string {
  const all = hooks.flatMap(({ hook, layers }) => layers.map((layer) => ({ hook, ...layer })));
  const accuracyOf = ({ probe }: LayerSummary) => probe?.accuracy.value ?? 0;
  const best = all.reduce((one, other) => (accuracyOf(other) > accuracyOf(one) ? other : one));
  const { value, low, high } = best.probe?.accuracy ?? { value: 0, low: 0, high: 0 };
  const where = `${best.hook}, layer ${best.layer}`;
  return `${visibleText(field)} is read best at ${where}: ${value.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}], the most frequent alone ${majority.toFixed(2)}`;
}

function probeFigure({ hooks, label }: CorpusSummary): Figure {
  const series = (layers: readonly LayerSummary[], name: string, of: 'accuracy' | 'shuffled') => ({
    label: name,
    points: layers.flatMap(({ layer, probe }) => {
      if (!probe) return [];
      const { value: y, low, high } = probe[of];
      return [{ x: layer, y, low, high }];
    }),
  });
  return {
    title: `${visibleText(label?.field ?? '')} by a linear probe`,
    xLabel: 'layer',
    yLabel: 'share read rightly',
    panels: hooks.map(({ hook, layers }) => ({
      title: hook,
      series: [series(layers, 'linear probe', 'accuracy'), series(layers, 'taught shuffled labels', 'shuffled')],
      baselines: [{ label: 'the most frequent label', y: label?.majority ?? 0 }],
    })),
    notes: label ? probeNotes(label) : [],
  };
}

function normsFigure({ hooks }: CorpusSummary): Figure {
  const panels = hooks.map(
    ({ hook, layers }): Panel => ({
      title: hook,
      series: [
        {
          label: 'median norm',
          points: layers.map(({ layer, norm: { median, low, high } }) => ({ x: layer, y: median, low, high })),
        },
      ],
    }),
  );
  const highest = Math.max(...hooks.flatMap(({ layers }) => layers.map(({ norm }) => norm.high)));
  return {
    title: 'Euclidean norm of a state',
    xLabel: 'layer',
    yLabel: 'norm',
    yRange: [0, highest || 1],
    panels,
    notes: ['Band: 5 % to 95 % of the states.'],
  };
}

/** Of the first hook, at its first, middle and last layer. */
function componentsScatter({ hooks, sample, label }: CorpusSummary): Scatter | undefined {
  const coloured = label?.values.slice(0, COLOURED).map(({ value }) => value) ?? [];
  const colourOf = ({ fields }: CorpusPrompt) => {
    if (!label) return 'state';
    const value = String(fields[label.field]);
    return coloured.includes(value) ? visibleText(value) : OTHER;
  };
  const { hook, layers } = hooks[0] as CorpusSummary['hooks'][number];
  const panels = layers.flatMap(({ layer, pca }) => {
    if (!pca) return [];
    const axis = (i: 0 | 1) => `PC ${i + 1} (${Math.round(100 * pca.explained[i])} % of the variance)`;
    const points = pca.points.map(([x, y], i) => {
      const prompt = sample[i] as CorpusPrompt;
      return { x, y, colour: colourOf(prompt), shape: 'state', label: describe(prompt) };
    });
    return [{ title: `${hook}, layer ${layer}`, xLabel: axis(0), yLabel: axis(1), points }];
  });
  const title = label ? `States by ${visibleText(label.field)}` : 'States';
  return panels.length > 0 ? { title, panels } : undefined;
}

/** `#12: Peru, South America` */
function describe({ index, fields }: CorpusPrompt): string {
  const values = Object.values(fields).filter((value) => typeof value !== 'object');
  const text = visibleText(values.join(', '));
  const more = text.length > 80 ? `${text.slice(0, 80)}…` : text;
  return `#${index}${more && `: ${more}`}`;
}

function labelsTable({ field, values, without }: NonNullable<CorpusSummary['label']>): TextTable {
  return {
    title: `Prompts by ${visibleText(field)}`,
    columns: [...texts(visibleText(field)), ...numbers(0, 'prompts')],
    rows: values.map(({ value, prompts }) => [visibleText(value), prompts]),
    notes: without > 0 ? [`${counted(without, 'prompt')} with none of these.`] : [],
  };
}
