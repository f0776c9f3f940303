import type { LensCell } from '../../lens/logit-lens.js';
import { XpatchError } from '../../util/errors.js';
import type { LensView } from '../report.js';
import { visibleText } from '../visible.js';
import { scaleColours } from './colour-scale.js';
import { patchesOf } from './patches.js';
import { drawSheet } from './sheet.js';
import { STEPS, stepOf } from './steps.js';
import { colour, fitText, fixed, svgText, textWidth } from './svg.js';

/** Columns that a page of a paper has room for. */
const MOST_POSITIONS = 24;
const CELL = { width: 58, height: 17 };
const HEAD = 34;
const MODE = 'outlines';

/**
 * A lens as SVG: a row a layer (the highest on top), a column a position, in every cell the best token over a colour for its
 * probability. At most the last 24 positions; rows of pictures that `pictureToSvg` draws are left out next to tokens. For files:
 * the page draws a lens itself.
 * @throws {XpatchError} INVALID_ARGUMENT for a lens without layers, positions or best tokens, or whose inputs do not fit it
 */
export function heatmapToSvg(view: LensView): string {
  const { title, lens, inputs } = view;
  requireLens(view);
  const shown = shownPositions(view);
  const rows = lens.layers.map((layer, l) => ({ layer, l })).sort((a, b) => b.layer - a.layer);
  const left = 22 + Math.max(...rows.map(({ layer }) => textWidth(String(layer), 11))) + 8;
  const height = HEAD + rows.length * CELL.height;
  const svg: string[] = [];
  let x = left - CELL.width;
  for (const [column, p] of shown.entries()) {
    // A gap where positions are left out.
    const next = column === 0 || p === (shown[column - 1] as number) + 1;
    x += CELL.width + (next ? 0 : 8);
    const middle = { anchor: 'middle', fill: 'muted' } as const;
    const input = inputs[p] as LensView['inputs'][number];
    const text = input.kind === 'image' ? 'picture' : visibleText(input.text);
    svg.push(svgText(MODE, x + CELL.width / 2, 12, String(lens.positions[p]), { ...middle, size: 9 }));
    svg.push(
      svgText(MODE, x + CELL.width / 2, 26, fitText(text, 10, CELL.width - 4), {
        ...middle,
        fill: 'ink',
        size: 10,
      }),
    );
    for (const [row, { l }] of rows.entries()) {
      svg.push(drawCell(lens.cells[l]?.[p] as LensCell, x, HEAD + row * CELL.height));
    }
  }
  for (const [row, { layer }] of rows.entries()) {
    const y = HEAD + (row + 0.5) * CELL.height + 4;
    svg.push(svgText(MODE, left - 8, y, String(layer), { size: 11, anchor: 'end', fill: 'muted' }));
  }
  svg.push(
    svgText(MODE, 11, HEAD + (rows.length * CELL.height) / 2, 'layer', { size: 12, anchor: 'middle', rotate: -90 }),
  );
  const width = Math.max(420, x + CELL.width);
  svg.push(`<g transform="translate(${left} ${height + 14})">${drawScale()}</g>`);
  return drawSheet(MODE, {
    title,
    width,
    legend: [],
    plot: { svg, height: height + 34 },
    notes: [...(view.notes ?? []), ...cutNote(view, shown)],
  });
}

/** @throws {XpatchError} INVALID_ARGUMENT */
export function requireLens({ title, lens, inputs }: LensView): void {
  const { layers, positions, cells } = lens;
  const whole =
    layers.length > 0 &&
    positions.length > 0 &&
    inputs.length === positions.length &&
    cells.length === layers.length &&
    cells.every(
      (row) => row.length === positions.length && row.every(({ top }) => Number.isFinite(top[0]?.probability)),
    );
  if (whole) return;
  throw new XpatchError(
    'INVALID_ARGUMENT',
    `The lens "${title}" needs a layer, a position, an input for every position, and in every cell a best token with its probability (top-k of at least 1).`,
  );
}

/** Indices into the positions of the lens. */
function shownPositions(view: LensView): number[] {
  const { inputs, pictures } = view;
  const all = inputs.map((_, p) => p);
  const tokens = all.filter((p) => inputs[p]?.kind === 'token');
  const drawnElsewhere = pictures.length > 0 && pictures.every((picture) => patchesOf(view, picture).length > 0);
  return (drawnElsewhere && tokens.length > 0 ? tokens : all).slice(-MOST_POSITIONS);
}

function cutNote({ inputs }: LensView, shown: readonly number[]): string[] {
  if (shown.length === inputs.length) return [];
  const parts = [
    `Shown: ${shown.length} of ${inputs.length} positions`,
    ...(shown.length === MOST_POSITIONS ? ['the last ones'] : []),
    ...(shown.some((p) => inputs[p]?.kind === 'image') ? [] : ['without the rows of pictures']),
  ];
  return [`${parts.join(', ')}. The numbers of all are in the CSV and JSON files.`];
}

const SCALE = scaleColours().map(({ light }) => light as { ground: `#${string}`; ink: `#${string}` });

/** Ground and ink for a probability, as the page has them in its light scheme. */
export const shadeOf = (probability: number) => SCALE[stepOf(probability)] as (typeof SCALE)[number];

function drawCell({ top }: LensCell, x: number, y: number): string {
  const { width, height } = CELL;
  const { ground, ink } = shadeOf(top[0]?.probability ?? 0);
  const text = fitText(visibleText(top[0]?.text ?? ''), 10, width - 4);
  const rect = `<rect x="${fixed(x)}" y="${fixed(y)}" width="${width}" height="${height}" fill="${ground}" stroke="${colour(MODE, 'ground')}" stroke-width="0.5"/>`;
  return rect + svgText(MODE, x + width / 2, y + height / 2 + 3.6, text, { size: 10, anchor: 'middle', fill: ink });
}

/** The colour bar, with its name next to it. */
export function drawScale(): string {
  const steps = SCALE.map(({ ground }, i) => `<rect x="${i * 4}" width="4" height="10" fill="${ground}"/>`);
  const small = { size: 10, fill: 'muted' } as const;
  const width = STEPS * 4;
  return [
    `<g transform="translate(12 0)">${steps.join('')}<rect width="${width}" height="10" fill="none" stroke="${colour(MODE, 'grid')}"/></g>`,
    svgText(MODE, 6, 9, '0', { ...small, anchor: 'end' }),
    svgText(MODE, width + 18, 9, '1', small),
    svgText(MODE, width + 34, 9, 'probability of the best token', small),
  ].join('');
}
