import { XpatchError } from '../../util/errors.js';
import type { Scatter } from '../report.js';
import { tickLabel, ticks } from './axes.js';
import { drawMark, type Mark, SHAPE_COUNT } from './marks.js';
import { drawSheet, PHONE_WIDTH } from './sheet.js';
import { colour, fittingSize, fixed, SERIES, svgText, type TextMode, tipOf } from './svg.js';

type Panel = Scatter['panels'][number];

const SIZE = { width: 330, height: 270 };
const GAP = { x: 56, y: 44 };
const AXIS = { left: 46, bottom: 40 };
const PANEL_TITLE = 26;

/**
 * A scatter plot as SVG, two panels a row (three are one row), each with its own axes; one legend for colours and shapes.
 *
 * @param mode Defaults to `outlines`.
 * @param phone One panel a row, as narrow as a phone. Defaults to false.
 * @throws {XpatchError} INVALID_ARGUMENT for a panel without points, a number that is not finite, or more colours or shapes
 *   than can be told apart (16 and 6)
 */
export function scatterToSvg({ title, panels, notes }: Scatter, mode: TextMode = 'outlines', phone = false): string {
  const points = panels.flatMap((panel) => panel.points);
  const colours = [...new Set(points.map((point) => point.colour))];
  const shapes = [...new Set(points.map((point) => point.shape))];
  requireDrawable(title, panels, colours, shapes);
  const markOf = (colourName: string, shapeName: string): Mark => {
    const c = colours.indexOf(colourName);
    return { colour: `series-${c % SERIES.length}`, shape: shapes.indexOf(shapeName), hollow: c >= SERIES.length };
  };
  const size = phone ? { width: PHONE_WIDTH - AXIS.left - 10, height: 230 } : SIZE;
  const columns = phone ? 1 : panels.length === 3 ? 3 : Math.min(2, panels.length);
  const rows = Math.ceil(panels.length / columns);
  const cell = { width: AXIS.left + size.width, height: PANEL_TITLE + size.height + AXIS.bottom };
  const svg = panels.map((panel, i) => {
    const x = (i % columns) * (cell.width + GAP.x / 2) + AXIS.left;
    const y = Math.floor(i / columns) * (cell.height + GAP.y / 2) + PANEL_TITLE;
    return `<g transform="translate(${fixed(x)} ${fixed(y)})">${drawPanel(panel, size, markOf, mode)}</g>`;
  });
  const first = colours[0] as string;
  return drawSheet(mode, {
    title,
    width: phone ? PHONE_WIDTH : Math.max(460, columns * cell.width + (columns - 1) * (GAP.x / 2) + 10),
    legend: [
      ...colours.map((name): [string, string] => {
        const { colour: paint, hollow } = markOf(name, shapes[0] as string);
        const look = hollow
          ? `fill="none" stroke="${colour(mode, paint)}" stroke-width="2"`
          : `fill="${colour(mode, paint)}"`;
        return [name, `<rect x="6" y="-11" width="14" height="14" rx="3" ${look}/>`];
      }),
      ...(shapes.length > 1
        ? shapes.map((name): [string, string] => {
            return [name, drawMark(mode, { ...markOf(first, name), colour: 'ink', hollow: false }, 13, -4)];
          })
        : []),
    ],
    plot: { svg, height: rows * cell.height + (rows - 1) * (GAP.y / 2) },
    notes,
  });
}

function requireDrawable(
  title: string,
  panels: readonly Panel[],
  colours: readonly string[],
  shapes: readonly string[],
) {
  const refuse = (problem: string): never => {
    throw new XpatchError('INVALID_ARGUMENT', `The scatter plot "${title}" ${problem}`);
  };
  if (panels.length === 0 || panels.some((panel) => panel.points.length === 0)) {
    refuse('has a panel without points. Leave out what was not measured.');
  }
  if (!panels.every((panel) => panel.points.every(({ x, y }) => Number.isFinite(x) && Number.isFinite(y)))) {
    refuse('has a number that is not finite. Leave out what was not measured.');
  }
  if (colours.length > 2 * SERIES.length || shapes.length > SHAPE_COUNT) {
    refuse(
      `has ${colours.length} colours and ${shapes.length} shapes: at most 16 and ${SHAPE_COUNT} can be told apart.`,
    );
  }
}

function drawPanel(
  panel: Panel,
  { width, height }: typeof SIZE,
  markOf: (colour: string, shape: string) => Mark,
  mode: TextMode,
): string {
  const xRange = padded(panel.points.map(({ x }) => x));
  const yRange = padded(panel.points.map(({ y }) => y));
  const toX = (x: number) => ((x - xRange[0]) / (xRange[1] - xRange[0])) * width;
  const toY = (y: number) => height - ((y - yRange[0]) / (yRange[1] - yRange[0])) * height;
  const grid = colour(mode, 'grid');
  const small = { size: 10.5, fill: 'muted' } as const;
  const out = [svgText(mode, 0, -10, panel.title, { size: 12.5, bold: true })];
  for (const x of ticks(...xRange, 5)) {
    out.push(`<path d="M${fixed(toX(x))} 0V${height}" stroke="${grid}"/>`);
    out.push(svgText(mode, toX(x), height + 15, tickLabel(x), { ...small, anchor: 'middle' }));
  }
  for (const y of ticks(...yRange, 5)) {
    out.push(`<path d="M0 ${fixed(toY(y))}H${width}" stroke="${grid}"/>`);
    out.push(svgText(mode, -6, toY(y) + 4, tickLabel(y), { ...small, anchor: 'end' }));
  }
  out.push(`<rect width="${width}" height="${height}" fill="none" stroke="${grid}"/>`);
  const axis = { size: 11.5, anchor: 'middle' } as const;
  out.push(svgText(mode, width / 2, height + 31, panel.xLabel, axis));
  const size = fittingSize(panel.yLabel, axis.size, height);
  out.push(svgText(mode, -36, height / 2, panel.yLabel, { ...axis, size, rotate: -90 }));
  for (const { x, y, colour: name, shape, label } of panel.points) {
    const tip = tipOf(mode, `${label} (${name}, ${shape})`);
    // Seen through a little, so that points over each other show.
    out.push(drawMark(mode, markOf(name, shape), toX(x), toY(y), { attributes: ` opacity="0.8"${tip}` }));
  }
  return out.join('\n');
}

function padded(values: readonly number[]): [low: number, high: number] {
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  const pad = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - pad, high + pad];
}
