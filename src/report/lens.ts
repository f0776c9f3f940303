import type { PromptLens } from '../lens/prompt-lens.js';
import { counted } from '../util/counted.js';
import { numbers, texts } from './columns.js';
import type { Figure } from './figures/figure.js';
import { percent } from './page/text.js';
import type { Block, LensView, Report, TextTable } from './report.js';
import { labelsOf, rankText } from './tracked.js';
import { visibleText } from './visible.js';

/** The blocks of a lens report: the grid, how the answer rises, and the numbers at the last position. */
export function reportOfLens(found: PromptLens, { provenance }: Pick<Report, 'provenance'>): Report {
  const { model, tuned } = found;
  const how = tuned
    ? "Every state is first mapped to a prediction of the last layer's state (tuned lens), then read"
    : "Every state is read as if it were the last layer's (logit lens):";
  return {
    title: `${tuned ? 'Tuned' : 'Logit'} lens of ${model.identity.name || model.identity.architecture}`,
    introduction: [`${how} through the model's own final norm and output head.`],
    ...bestToken(found),
    blocks: [
      { kind: 'lens', name: 'lens', heading: 'Layers and positions', lens: lensView(found) },
      ...riseBlock(found),
      { kind: 'table', name: 'last-position', heading: 'At the last position', table: lastPositionTable(found) },
    ],
    provenance,
  };
}

/** What the model says at the end of the prompt. */
function bestToken({ last: { cells } }: PromptLens): Pick<Report, 'headline'> {
  const best = cells.at(-1)?.[0]?.top[0];
  return best ? { headline: `${visibleText(best.text)} ${percent(best.probability)}` } : {};
}

/** The grid of a lens with the prompt next to it. */
export function lensView({ model, prompt, lens, asked, tuned }: PromptLens): LensView {
  const shown = new Set(lens.positions);
  return {
    title: tuned ? 'Tuned lens' : 'Logit lens',
    lens,
    listed: asked,
    inputs: lens.positions.map((p) => {
      const token = prompt.tokens[p] as number;
      return token < 0 ? { text: '', kind: 'image' } : { text: model.detokenize([token]), kind: 'token' };
    }),
    pictures: prompt.pictures
      .filter(({ first, nRows }) => Array.from({ length: nRows }, (_, i) => first + i).some((p) => shown.has(p)))
      .map(({ first, seen, grid }) => ({ first, picture: seen, grid })),
  };
}

/** Probability of the followed tokens by layer; nothing for a single layer, which makes no curve. */
function riseBlock({ last }: PromptLens): Block[] {
  if (last.layers.length < 2) return [];
  const followed = last.cells[0]?.[0]?.tokens ?? [];
  if (followed.length === 0) return [];
  const figure: Figure = {
    title: 'Tokens at the last position, layer by layer',
    xLabel: 'layer (block output)',
    yLabel: 'probability',
    panels: [
      {
        title: '',
        series: labelsOf(followed).map((label, i) => ({
          label,
          points: last.layers.map((layer, l) => ({
            x: layer,
            y: last.cells[l]?.[0]?.tokens[i]?.probability as number,
          })),
        })),
      },
    ],
  };
  return [
    {
      kind: 'curves',
      name: 'rise',
      heading: 'How the answer rises',
      caption: 'The best tokens of the highest layer, and those asked for.',
      figure,
    },
  ];
}

/** Best tokens in the table of the last position, however many were kept. */
const SHOWN = 10;

function lastPositionTable({ last }: PromptLens): TextTable {
  const followed = last.cells[0]?.[0]?.tokens ?? [];
  return {
    title: `Position ${last.positions[0]}`,
    columns: [
      ...numbers(0, 'layer'),
      ...texts('best tokens'),
      ...numbers(3, 'probability'),
      ...numbers(2, 'entropy, nats', 'KL to the highest layer, nats'),
      ...numbers(0, ...labelsOf(followed).map((label) => `rank of ${label}`)),
    ],
    rows: last.layers.map((layer, l) => {
      const cell = last.cells[l]?.[0];
      const best = cell?.top
        .slice(0, SHOWN)
        .map(({ text }) => visibleText(text))
        .join('  ');
      return [
        layer,
        best,
        cell?.top[0]?.probability,
        cell?.entropy,
        cell?.kl,
        ...(cell?.tokens ?? []).map(({ rank }) => rank + 1),
      ];
    }),
    notes: ['Ranks count from 1, the best token.'],
  };
}

const CELL = 10;
const GAP = '  ';

/**
 * The best tokens of a lens for the terminal: a line a layer, the highest on top, a column a position. Rows of pictures are
 * left to the page, and of a long prompt the last positions that fit are shown. Below it, the tokens asked for at the last position.
 *
 * @param width characters a line
 */
export function lensTable(found: PromptLens, width: number): string {
  const { model, prompt, lens } = found;
  const room = Math.max(1, Math.floor((width - 'layer'.length) / (CELL + GAP.length)));
  const words = lens.positions.map((_, p) => p).filter((p) => (prompt.tokens[lens.positions[p] as number] ?? -1) >= 0);
  const shown = words.slice(-room);
  const line = (head: string, texts: readonly string[]) => [head.padStart(5), ...texts].join(GAP).trimEnd();
  const rows = lens.layers
    .map((layer, l) => ({ layer, l }))
    .sort((a, b) => b.layer - a.layer)
    .map(({ layer, l }) =>
      line(
        String(layer),
        shown.map((p) => {
          const best = lens.cells[l]?.[p]?.top[0];
          return best ? `${column(best.text, CELL - 4)} ${share(best.probability)}` : ''.padEnd(CELL);
        }),
      ),
    );
  const heads = shown.map((p) =>
    column(model.detokenize([prompt.tokens[lens.positions[p] as number] as number]), CELL),
  );
  const left = lens.positions.length - shown.length;
  return [
    line('layer', heads),
    ...rows,
    ...(left > 0 ? [`${counted(left, 'further position')} (of pictures, or to the left) in the report.`] : []),
    ...followedLines(found),
    '',
  ].join('\n');
}

/** Probability and rank of the tokens asked for at the last position, in columns, the highest layer on top. */
function followedLines({ last, asked }: PromptLens): string[] {
  const heads = labelsOf(last.cells[0]?.[0]?.tokens.slice(0, asked) ?? []);
  if (heads.length === 0) return [];
  const rows = last.layers
    .map((layer, l) => ({ layer, texts: (last.cells[l]?.[0]?.tokens ?? []).slice(0, asked).map(rankText) }))
    .sort((a, b) => b.layer - a.layer);
  const widths = heads.map((head, i) => Math.max(head.length, ...rows.map(({ texts }) => texts[i]?.length ?? 0)));
  const line = (first: string, texts: readonly string[]) =>
    [first.padStart(5), ...texts.map((text, i) => text.padEnd(widths[i] as number))].join(GAP).trimEnd();
  return [
    '',
    `At the last position, ${last.positions[0]}:`,
    line('layer', heads),
    ...rows.map(({ layer, texts }) => line(String(layer), texts)),
  ];
}

const share = (probability: number): string => (probability >= 0.995 ? '1.0' : probability.toFixed(2).slice(1));

/** Exactly so many characters, cut with an ellipsis or filled with spaces. */
function column(text: string, width: number): string {
  const characters = [...visibleText(text)];
  return (characters.length > width ? [...characters.slice(0, width - 1), '…'] : characters).join('').padEnd(width);
}
