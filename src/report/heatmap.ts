import { XpatchError } from '../errors.js';
import type { LensCell } from '../lens/logit-lens.js';
import type { LensView } from './report.js';
import { drawSheet } from './sheet.js';
import { colour, fitText, fixed, svgText, type TextMode, textWidth, tipOf } from './svg.js';
import { visibleText } from './visible.js';

/** Columns that a page of a paper has room for. */
const MOST_POSITIONS = 24;
const CELL = { width: 58, height: 17 };
const HEAD = 34;

/**
 * A lens as SVG: a row a layer (the highest on top), a column a position, in every cell the best token over a colour for its
 * probability. At most the last 24 positions; rows of pictures that `pictureToSvg` draws are left out beside tokens.
 *
 * @param mode Defaults to `text`.
 * @throws {XpatchError} INVALID_ARGUMENT for a lens without layers, positions or best tokens, or whose inputs do not fit it
 */
export function heatmapToSvg(view: LensView, mode: TextMode = 'text'): string {
  const { title, lens, inputs } = view;
  requireLens(view);
  const shown = shownPositions(view);
  const rows = lens.layers.map((layer, l) => ({ layer, l })).sort((a, b) => b.layer - a.layer);
  const left = 22 + Math.max(...rows.map(({ layer }) => textWidth(String(layer), 11))) + 8;
  const height = HEAD + rows.length * CELL.height;
  const svg: string[] = [];
  for (const [column, p] of shown.entries()) {
    const x = left + column * CELL.width;
    const middle = { anchor: 'middle', fill: 'muted' } as const;
    const input = inputs[p] as LensView['inputs'][number];
    const text = input.kind === 'image' ? 'picture' : visibleText(input.text);
    svg.push(svgText(mode, x + CELL.width / 2, 12, String(lens.positions[p]), { ...middle, size: 9 }));
    svg.push(
      svgText(mode, x + CELL.width / 2, 26, fitText(text, 10.5, CELL.width - 4), {
        ...middle,
        fill: 'ink',
        size: 10.5,
      }),
    );
    for (const [row, { layer, l }] of rows.entries()) {
      const cell = lens.cells[l]?.[p] as LensCell;
      const tip = tipOf(mode, `layer ${layer}, position ${lens.positions[p]}: ${describeTop(cell)}`);
      const drawn = drawCell(mode, cell, x, HEAD + row * CELL.height, CELL);
      svg.push(`<g${tip}>${drawn}</g>`);
    }
  }
  for (const [row, { layer }] of rows.entries()) {
    const y = HEAD + (row + 0.5) * CELL.height + 4;
    svg.push(svgText(mode, left - 8, y, String(layer), { size: 11, anchor: 'end', fill: 'muted' }));
  }
  svg.push(
    svgText(mode, 11, HEAD + (rows.length * CELL.height) / 2, 'layer', { size: 12, anchor: 'middle', rotate: -90 }),
  );
  const width = Math.max(420, left + shown.length * CELL.width);
  svg.push(`<g transform="translate(${left} ${height + 14})">${drawScale(mode)}</g>`);
  return drawSheet(mode, {
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
    cells.every((row) => row.length === positions.length && row.every((cell) => cell.top.length > 0));
  if (whole) return;
  throw new XpatchError(
    'INVALID_ARGUMENT',
    `The lens "${title}" needs a layer, a position, an input for every position and a best token in every cell (topK of at least 1).`,
  );
}

/** Indices into the positions of the lens. */
function shownPositions({ inputs, pictures }: LensView): number[] {
  const all = inputs.map((_, p) => p);
  const tokens = all.filter((p) => inputs[p]?.kind === 'token');
  const drawnElsewhere = pictures.length > 0 && pictures.every(({ grid }) => !('reason' in grid));
  return (drawnElsewhere && tokens.length > 0 ? tokens : all).slice(-MOST_POSITIONS);
}

function cutNote({ inputs }: LensView, shown: readonly number[]): string[] {
  if (shown.length === inputs.length) return [];
  const without = shown.some((p) => inputs[p]?.kind === 'image') ? '' : ', without the rows of pictures';
  return [
    `Shown: ${shown.length} of ${inputs.length} positions, the last ones${without}. The numbers of all are in the CSV and JSON files.`,
  ];
}

/** The best tokens of a cell with their probabilities. */
export function describeTop({ top }: LensCell): string {
  return top.map(({ text, probability }) => `${visibleText(text)} ${probability.toFixed(3)}`).join(', ');
}

// Never so dark that ink on it could not be read.
const DARKEST = 0.75;

/** A ground for a probability: from the ground colour to three quarters of the first series colour. */
export function shade(mode: TextMode, probability: number): string {
  const share = DARKEST * Math.min(1, Math.max(0, probability));
  return `fill="${colour(mode, 'series-0')}" fill-opacity="${fixed(share)}"`;
}

export function drawCell(
  mode: TextMode,
  { top }: LensCell,
  x: number,
  y: number,
  { width, height }: { width: number; height: number },
): string {
  const best = top[0];
  const size = Math.min(10, height * 0.6);
  const text = fitText(visibleText(best?.text ?? ''), size, width - 4);
  const rect = `<rect x="${fixed(x)}" y="${fixed(y)}" width="${fixed(width)}" height="${fixed(height)}" ${shade(mode, best?.probability ?? 0)} stroke="${colour(mode, 'grid')}" stroke-width="0.5"/>`;
  return rect + svgText(mode, x + width / 2, y + height / 2 + size * 0.36, text, { size, anchor: 'middle' });
}

/** The colour bar, 200 x 20 pixels. */
function drawScale(mode: TextMode): string {
  const steps = Array.from({ length: 20 }, (_, i) => {
    return `<rect x="${i * 6}" width="6" height="10" ${shade(mode, (i + 0.5) / 20)}/>`;
  });
  const small = { size: 10, fill: 'muted' } as const;
  return [
    `<g transform="translate(12 0)">${steps.join('')}<rect width="120" height="10" fill="none" stroke="${colour(mode, 'grid')}"/></g>`,
    svgText(mode, 6, 9, '0', { ...small, anchor: 'end' }),
    svgText(mode, 138, 9, '1', small),
    svgText(mode, 154, 9, 'probability of the best token', small),
  ].join('');
}
