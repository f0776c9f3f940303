import { mean } from '../stats/statistics.js';
import {
  bestWordLayer,
  type Decoding,
  type DecodingOptions,
  decodingUnits,
  defaultDecodingLayer,
  type SavedVectorOptions,
} from '../studies/decodings.js';
import { XpatchError } from '../util/errors.js';
import { groupBy } from '../util/group.js';
import { numbers, texts } from './columns.js';
import type { Figure } from './figures/figure.js';
import type { Block, TextTable } from './report.js';
import { type StudyKind, studyReport } from './study-kind.js';
import { visibleText } from './visible.js';

/** What is decoded, and which layers of it are shown. */
type DecodingRun = (DecodingOptions | SavedVectorOptions) & {
  /** `null` for the layers that `shownLayers` chooses. */
  readonly layers: 'all' | readonly number[] | null;
  /** Number of tokens, the scale of the ranks. */
  readonly vocabulary: number;
  readonly nLayers: number;
};

/** The study in the folder of a run. */
export const decoding: StudyKind<DecodingRun, Decoding> = {
  units: decodingUnits,
  /** A table of best tokens for each layer, and the ranks of task words and answers at all. */
  report: (decodings, { layers: chosen, nLayers, vocabulary }, about) => {
    const layers = shownLayers(decodings, chosen, nLayers).map(
      ({ layer, why }): Block => ({
        kind: 'table',
        name: `layer-${layer}`,
        heading: `Layer ${layer}${why === undefined ? '' : `, ${why}`}`,
        table: decodingTable(decodings, layer, vocabulary),
      }),
    );
    return studyReport(about, decodingStatements(decodings), [...layers, ...rankFigures(decodings, vocabulary)]);
  },
};

/**
 * Those asked for; else the paper's depth and the layer where task words rank best.
 * @throws {XpatchError} INVALID_ARGUMENT for a layer that no vector has
 */
export function shownLayers(
  decodings: readonly Decoding[],
  chosen: DecodingRun['layers'],
  nLayers: number,
): ShownLayer[] {
  const known = new Set(decodings.flatMap(({ layers }) => layers.map(({ layer }) => layer)));
  if (chosen !== null) {
    const layers = chosen === 'all' ? [...known].sort((a, b) => a - b) : chosen;
    const missing = layers.find((layer) => !known.has(layer));
    if (missing === undefined) return layers.map((layer) => ({ layer }));
    const message = `No vector has layer ${missing}; they have ${[...known].join(', ')}.`;
    throw new XpatchError('INVALID_ARGUMENT', message);
  }
  const paper = defaultDecodingLayer(nLayers);
  const best = bestWordLayer(decodings);
  return [
    ...(known.has(paper) ? [{ layer: paper, why: "the paper's 18 of 32 as a share of the depth" }] : []),
    ...(best !== undefined && best !== paper
      ? [{ layer: best, why: 'where task words rank best (chosen by that)' }]
      : []),
    ...(known.has(paper) || best !== undefined ? [] : [...known].map((layer) => ({ layer }))),
  ];
}

/** Layers to show, and whether one of them was chosen by its ranks. */
interface ShownLayer {
  readonly layer: number;
  /** Why this one, for the heading. */
  readonly why?: string;
}

/** What the vectors show, in sentences computed from them. */
export function decodingStatements(decodings: readonly Decoding[]): string[] {
  const known = decodings.filter(({ layers }) => layers.some(({ wordRank }) => wordRank !== undefined));
  if (known.length === 0) return [];
  const top = (limit: number) =>
    known.filter(({ layers }) => layers.some(({ wordRank = Number.POSITIVE_INFINITY }) => wordRank < limit)).length;
  const best = bestWordLayer(decodings);
  const at = best === undefined ? '' : ` Task words rank best together at layer ${best}.`;
  return [
    `The task word is the best token at some layer of ${top(1)} of ${known.length} vectors, and among the five best of ${top(5)}.${at}`,
  ];
}

/** One layer: the best tokens of each vector, and where the task word and the answers rank. */
export function decodingTable(decodings: readonly Decoding[], layer: number, vocabulary: number): TextTable {
  const hasFiles = decodings.some(({ file }) => file !== undefined);
  const several = hasSeeds(decodings);
  return {
    title: `Decodings at layer ${layer}`,
    columns: [
      ...texts(...(hasFiles ? ['file'] : []), 'task', 'vector'),
      ...(several ? numbers(0, 'seed') : []),
      ...texts('best tokens'),
      ...numbers(0, 'rank of the task word', 'best rank of an answer'),
    ],
    rows: decodings.flatMap((decoding) => {
      const at = decoding.layers.find((entry) => entry.layer === layer);
      if (at === undefined) return [];
      const rank = (value: number | undefined) => (value === undefined ? undefined : value + 1);
      return [
        [
          ...(hasFiles ? [decoding.file] : []),
          decoding.task,
          decoding.spec,
          ...(several ? [decoding.seed] : []),
          at.top.map(({ text }) => visibleText(text)).join('  '),
          rank(at.wordRank),
          rank(at.answerRank),
        ],
      ];
    }),
    notes: [
      `Ranks count from 1 in a vocabulary of ${vocabulary} tokens. Task word: the best of its spellings that are one token. Answers: the best first token of any answer of the task, one of many${answerCounts(decodings)}.`,
    ],
  };
}

const hasSeeds = (decodings: readonly Decoding[]) => new Set(decodings.flatMap(({ seed }) => seed ?? [])).size > 1;

function answerCounts(decodings: readonly Decoding[]): string {
  const counts = decodings.map(({ answerTokens }) => answerTokens).filter((count) => count > 0);
  return counts.length ? ` (${Math.min(...counts)} to ${Math.max(...counts)} tokens a task)` : '';
}

/** Ranks over layers, a panel a kind of vector; nothing for vectors without a known task or with a single layer. */
function rankFigures(decodings: readonly Decoding[], vocabulary: number): Block[] {
  const specs = [...new Set(decodings.map(({ spec }) => spec))];
  const several = hasSeeds(decodings);
  const figure = (key: 'wordRank' | 'answerRank', title: string): Figure => ({
    title,
    xLabel: 'layer (0-based block output)',
    yLabel: 'log10 of the rank',
    yRange: [0, Math.log10(vocabulary)],
    panels: specs
      .map((spec) => ({
        title: `${spec ?? 'other'} vectors`,
        series: [
          ...groupBy(
            decodings.filter((decoding) => decoding.spec === spec),
            ({ task = '', file = task }) => file,
          ),
        ]
          .map(([label, seeds]) => ({ label, points: overSeeds(seeds, key) }))
          .filter(({ points }) => points.length > 1),
      }))
      .filter(({ series }) => series.length > 0),
    notes: [
      `0 is the best token of the vocabulary, ${Math.log10(vocabulary).toFixed(1)} the last of ${vocabulary}.`,
      ...(several ? ['Mean over seeds; bands from the lowest to the highest of them.'] : []),
    ],
  });
  const blocks: Block[] = [
    {
      kind: 'curves',
      name: 'rank-of-task-word',
      heading: 'Rank of the task word, layer by layer',
      figure: figure('wordRank', 'Rank of the task word'),
    },
    {
      kind: 'curves',
      name: 'rank-of-answer',
      heading: 'Best rank of an answer, layer by layer',
      figure: figure('answerRank', 'Best rank of an answer of the task'),
    },
  ];
  return blocks.filter((block) => block.kind === 'curves' && block.figure.panels.length > 0);
}

/** A point a layer: the mean over the seeds of a vector, and the lowest and highest of them. */
function overSeeds(seeds: readonly Decoding[], key: 'wordRank' | 'answerRank') {
  const ranks = groupBy(
    seeds.flatMap(({ layers }) => layers),
    ({ layer }) => layer,
  );
  return [...ranks].flatMap(([x, found]) => {
    const logs = found.flatMap(({ [key]: rank }) => (rank === undefined ? [] : [Math.log10(rank + 1)]));
    if (logs.length === 0) return [];
    return [{ x, y: mean(logs), ...(logs.length > 1 && { low: Math.min(...logs), high: Math.max(...logs) }) }];
  });
}
