import type { Estimate } from '../stats/statistics.js';
import { type LensQuality, lensQuality, type PromptDivergence } from '../studies/lens-quality.js';
import { type TuningOptions, type TuningPart, tuningUnits } from '../studies/tuning.js';
import { counted } from '../util/counted.js';
import { numbers, texts } from './columns.js';
import type { Figure } from './figures/figure.js';
import type { TextTable } from './report.js';
import type { StudyKind } from './study-kind.js';

/** The study in the folder of a run. */
export const tuning: StudyKind<TuningOptions, TuningPart> = {
  units: tuningUnits,
  report: (parts, _, { title, provenance }) => {
    const { lens, quality } = tuningOutcome(parts);
    return {
      title,
      introduction: [
        'A tuned lens (Belrose et al. 2023) predicts the last layer’s state from that of each layer before the model’s own head reads it.',
      ],
      blocks: [
        {
          kind: 'curves',
          name: 'kl',
          heading: 'How far each layer is from the answer',
          figure: tunedLensFigure(quality, title),
        },
        { kind: 'table', name: 'kl-per-layer', heading: 'The numbers', table: tunedLensTable(quality, lens, title) },
      ],
      provenance,
    };
  },
};

type FittedLens = Extract<TuningPart, { info: unknown }>;

/** The lens that was fitted, and how good it is. */
export function tuningOutcome(parts: readonly TuningPart[]): { lens: FittedLens; quality: LensQuality } {
  const [lens, ...tested] = parts as [FittedLens, ...PromptDivergence[]];
  return { lens, quality: lensQuality(tested) };
}

/** KL of the plain and the tuned lens, layer by layer. */
export function tunedLensTable(quality: LensQuality, lens: FittedLens, title: string): TextTable {
  const cells = (estimate: Estimate | undefined) =>
    estimate ? [estimate.value, estimate.low, estimate.high] : [undefined, undefined, undefined];
  const { layers, mean, prompts, positions } = quality;
  const { fit } = lens.info;
  const { gain } = mean;
  return {
    title,
    columns: [
      ...texts('layer'),
      ...numbers(3, 'plain', 'low', 'high', 'tuned', 'tuned low', 'tuned high'),
      ...texts('ridge'),
    ],
    rows: [
      ...layers.map(({ layer, plain, tuned }) => [
        String(layer),
        ...cells(plain),
        ...cells(tuned),
        String(lens.strengths[lens.info.layers.indexOf(layer)]),
      ]),
      ['mean', ...cells(mean.plain), ...cells(mean.tuned), ''],
    ],
    notes: [
      ...(gain
        ? [
            `Gain of the tuned lens, mean over layers: ${gain.value.toFixed(3)} (${gain.low.toFixed(3)} to ${gain.high.toFixed(3)}).`,
          ]
        : []),
      'KL divergence of the model’s final distribution from the lens’s, nats, with 95 % bootstrap intervals over prompts.',
      `Tested on ${counted(prompts, 'prompt')} (${counted(positions, 'position')}, the first one of a prompt never), fitted on ${fit.prompts} others (${counted(fit.positions, 'position')}); strengths chosen on ${fit.validationPrompts} further ones.`,
    ],
  };
}

function tunedLensFigure(quality: LensQuality, title: string): Figure {
  const { layers, prompts } = quality;
  const series = (label: string, of: (entry: LensQuality['layers'][number]) => Estimate | undefined) => ({
    label,
    points: layers.flatMap((entry) => {
      const estimate = of(entry);
      return estimate ? [{ x: entry.layer, y: estimate.value, low: estimate.low, high: estimate.high }] : [];
    }),
  });
  return {
    title,
    xLabel: 'Layer (0-based block output)',
    yLabel: 'KL to the final distribution (nats)',
    yRange: [0, Math.max(...layers.flatMap(({ plain, tuned }) => [plain.high, tuned?.high ?? 0]))],
    panels: [
      {
        title: `${prompts} held-out prompts`,
        series: [series('plain lens', ({ plain }) => plain), series('tuned lens', ({ tuned }) => tuned)],
      },
    ],
    notes: ['Bands: 95 % bootstrap intervals over prompts.'],
  };
}
