import { rankTokens } from '../model/tracked.js';
import type { TokenScore } from '../model/types.js';
import { counted, plural } from '../util/counted.js';
import type { Sweep } from '../vectors/sweep.js';
import { numbers, texts, within } from './columns.js';
import { percent } from './page/text.js';
import type { Block, Report, TextTable } from './report.js';
import { labelsOf } from './tracked.js';

/** Curves that can be told apart and still read. */
const MOST_CURVES = 6;

/**
 * The report of a layer sweep: probability of the next tokens by patched layer, and the table of them.
 *
 * @param sweep Result of `sweepLayers`. Only the tokens among its `topK` have a probability: where one is missing, its curve
 *   has no point.
 */
export function sweepReport(sweep: Sweep, about: Pick<Report, 'title' | 'introduction' | 'provenance'>): Report {
  return {
    ...about,
    introduction: [...about.introduction, ...(sweep.plain.top.length > 0 ? [bestTokens(sweep)] : [])],
    ...bestLayer(sweep),
    blocks: [
      ...curvesOf(sweep),
      { kind: 'table', name: 'sweep', heading: 'Next tokens by patched layer', table: sweepTable(sweep) },
    ],
  };
}

/** `With the patch … Lima at 0–2, Nicosia at 3; without a patch P.` */
function bestTokens({ plain, layers }: Sweep): string {
  const best = (top: readonly TokenScore[]) => (top[0] ? (labelsOf([top[0]])[0] as string) : '');
  const runs: { text: string; from: number; to: number }[] = [];
  for (const { layer, top } of layers) {
    const last = runs.at(-1);
    if (last?.text === best(top) && last.to === layer - 1) last.to = layer;
    else runs.push({ text: best(top), from: layer, to: layer });
  }
  const shown = runs
    .slice(0, MOST_CURVES)
    .map(({ text, from, to }) => `${text} at ${from === to ? from : `${from}–${to}`}`);
  const more = runs.length > shown.length ? ', and others' : '';
  return `Best next token by patched layer: ${shown.join(', ')}${more}; without a patch ${best(plain.top)}.`;
}

/** The patched layer after which the model is surest. */
function bestLayer({ layers }: Sweep): Pick<Report, 'headline'> {
  const bests = layers.flatMap(({ layer, top }) => (top[0] ? [{ layer, ...top[0] }] : []));
  const [best] = bests.sort((a, b) => b.probability - a.probability || a.layer - b.layer);
  if (best === undefined) return {};
  return { headline: `${labelsOf([best])[0]} ${percent(best.probability)} at layer ${best.layer}` };
}

/** Nothing for a single layer, which makes no curve. */
function curvesOf({ plain, layers, logits }: Sweep): Block[] {
  if (layers.length < 2) return [];
  const best = new Map<number, { text: string; probability: number }>();
  for (const { token, text, probability } of [...plain.top.slice(0, 1), ...layers.flatMap(({ top }) => top)]) {
    if (probability > (best.get(token)?.probability ?? -1)) best.set(token, { text, probability });
  }
  const followed = [...best].sort(([, a], [, b]) => b.probability - a.probability).slice(0, MOST_CURVES);
  const perLayer = layers.map(({ top }, l) => {
    const nVocab = logits?.shape[1] ?? 0;
    const row = logits?.data.subarray(l * nVocab, (l + 1) * nVocab);
    return row
      ? rankTokens(
          row,
          followed.map(([token]) => token),
          String,
        )
      : top;
  });
  const known = (y: number | undefined): y is number => y !== undefined;
  const labels = labelsOf(followed.map(([token, { text }]) => ({ token, text })));
  return [
    {
      kind: 'curves',
      name: 'layer-sweep',
      heading: 'Probability of the next token',
      figure: {
        title: 'Next token after a patch, by patched layer',
        xLabel: 'patched layer (0-based block output)',
        yLabel: 'probability',
        panels: [
          {
            title: '',
            series: followed.map(([token], i) => ({
              label: labels[i] as string,
              points: layers.flatMap(({ layer }, l) => {
                const y = perLayer[l]?.find((score) => score.token === token)?.probability;
                return known(y) ? [{ x: layer, y }] : [];
              }),
            })),
            baselines: plain.top.slice(0, 1).map((score) => ({
              label: `${labelsOf([score])[0]} without a patch`,
              y: score.probability,
            })),
          },
        ],
        notes: [
          `The ${counted(followed.length, 'token')} that ${plural(followed.length, 'is', 'are')} most probable at any layer.` +
            (logits ? '' : ' A point is missing where a token is not among the best ones that were asked for.'),
        ],
      },
    },
  ];
}

function sweepTable({ plain, layers }: Sweep): TextTable {
  const width = Math.max(plain.top.length, ...layers.map(({ top }) => top.length));
  const cells = (top: readonly TokenScore[]) =>
    Array.from({ length: width }, (_, i) => top[i]).flatMap((score) => [
      score && (labelsOf([score])[0] as string),
      score?.probability,
    ]);
  const ranks = Array.from({ length: width }, (_, i) => [
    ...texts(`token ${i + 1}`),
    ...within(`token ${i + 1}`, numbers(3, 'probability')),
  ]);
  return {
    title: 'Next tokens, best first',
    columns: [...numbers(0, 'layer'), ...numbers(2, 'change'), ...ranks.flat()],
    rows: [
      [undefined, undefined, ...cells(plain.top)],
      ...layers.map(({ layer, delta, top }) => [layer, delta, ...cells(top)]),
    ],
    notes: [
      'The row without a layer is the prompt without a patch.',
      'Change: L2 norm of what the patch changed in the residual stream.',
    ],
  };
}
