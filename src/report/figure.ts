import { XpatchError } from '../errors.js';
import { escapeXml, fixed, svgText, type TextMode, textWidth, wrapText } from './svg.js';

/** A point of a curve, with the interval drawn as a band when there is one. */
export interface Point {
  readonly x: number;
  readonly y: number;
  readonly low?: number;
  readonly high?: number;
}

/** The same label has the same colour, line and marker in all panels. */
export interface Series {
  readonly label: string;
  readonly points: readonly Point[];
}

export interface Panel {
  readonly title: string;
  readonly series: readonly Series[];
  /** Dotted horizontal lines, e.g. the accuracy of the Prompt baseline. */
  readonly baselines?: readonly { readonly label: string; readonly y: number }[];
  /** A vertical line, e.g. at the layer chosen on validation items. */
  readonly chosen?: { readonly label: string; readonly x: number };
}

/** One or more panels of line charts on common axes. */
export interface Figure {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly panels: readonly Panel[];
  /** Defaults to 0 to 1, the range of an accuracy. */
  readonly yRange?: readonly [number, number];
  /** Lines of small print below, e.g. what the bands are and n. */
  readonly notes?: readonly string[];
}

/** Colour-blind-safe on a light ground (Okabe and Ito 2008, without yellow), strongest contrasts first. */
const COLOURS = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#555555'];
const DASHES = ['1 4', '1 4 6 4', '6 4'];
const GREY = '#666666';
const GRID = '#E3E3E3';
const MARGIN = 16;
const GAP = { x: 28, y: 34 };
const AXIS = { left: 54, bottom: 44 };
const PANEL_TITLE = 22;

/**
 * A figure as SVG: light ground, axes common to all panels, one legend on top, at most three panels a row.
 *
 * @param mode `text` (default) keeps letters as text in a generic font; `outlines` draws them as paths, the same everywhere
 * @throws {XpatchError} INVALID_ARGUMENT for a figure without points, or with a number that is not finite
 */
export function figureToSvg(figure: Figure, mode: TextMode = 'text'): string {
  const { panels, yRange = [0, 1] } = figure;
  const xs = panels.flatMap((panel) => panel.series.flatMap((series) => series.points.map((point) => point.x)));
  requireFinite(figure, xs);
  const xRange = [Math.min(...xs), Math.max(...xs)] as const;
  const columns = Math.min(3, panels.length);
  const rows = Math.ceil(panels.length / columns);
  const size = panels.length === 1 ? { width: 560, height: 300 } : { width: 250, height: 170 };
  const width = 2 * MARGIN + AXIS.left + columns * size.width + (columns - 1) * GAP.x;
  const legend = drawLegend(figure, mode, width - 2 * MARGIN);
  // Outlines of bold letters are a little wider than their advances say.
  const title = wrapText(figure.title, 15, 0.97 * (width - 2 * MARGIN));
  const notes = (figure.notes ?? []).flatMap((note) => wrapText(note, 11, width - 2 * MARGIN));
  const legendTop = MARGIN + title.length * 20 + 6;
  const top = legendTop + legend.height + 10;
  const plotHeight = rows * (size.height + PANEL_TITLE) + (rows - 1) * GAP.y;
  const height = top + plotHeight + AXIS.bottom + notes.length * 16 + MARGIN;

  const out = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="sans-serif" role="img">`,
    `<title>${escapeXml(figure.title)}</title>`,
    `<rect width="${width}" height="${height}" fill="#FFFFFF"/>`,
    ...title.map((line, i) => svgText(mode, MARGIN, MARGIN + 14 + i * 20, line, { size: 15, bold: true })),
    `<g transform="translate(${MARGIN} ${legendTop})">${legend.svg}</g>`,
  ];
  panels.forEach((panel, i) => {
    const column = i % columns;
    const row = Math.floor(i / columns);
    const x = MARGIN + AXIS.left + column * (size.width + GAP.x);
    const y = top + row * (size.height + PANEL_TITLE + GAP.y) + PANEL_TITLE;
    // Numbers on the y axis stand at the left column only, on the x axis below every panel.
    const drawn = drawPanel(panel, { ...size, xRange, yRange, mode, yNumbers: column === 0, styles: legend.styles });
    out.push(`<g transform="translate(${fixed(x)} ${fixed(y)})">${drawn}</g>`);
  });
  const middle = MARGIN + AXIS.left + (width - 2 * MARGIN - AXIS.left) / 2;
  const axisStyle = { size: 12, anchor: 'middle' } as const;
  out.push(
    svgText(mode, middle, top + plotHeight + 36, figure.xLabel, axisStyle),
    svgText(mode, MARGIN + 12, top + plotHeight / 2, figure.yLabel, { ...axisStyle, rotate: -90 }),
    ...notes.map((note, i) =>
      svgText(mode, MARGIN, top + plotHeight + AXIS.bottom + 14 + i * 16, note, { size: 11, fill: GREY }),
    ),
    '</svg>',
  );
  return `${out.join('\n')}\n`;
}

function requireFinite({ title, panels, yRange = [0, 1] }: Figure, xs: readonly number[]): void {
  const numbers = panels.flatMap(({ series, baselines = [], chosen }) => [
    ...series.flatMap(({ points }) => points.flatMap(({ x, y, low = y, high = y }) => [x, y, low, high])),
    ...baselines.map((baseline) => baseline.y),
    chosen?.x ?? 0,
  ]);
  if (xs.length > 0 && yRange[0] < yRange[1] && numbers.every(Number.isFinite)) return;
  const problem = xs.length === 0 ? 'has no points' : 'has a number that is not finite or an empty range';
  throw new XpatchError('INVALID_ARGUMENT', `The figure "${title}" ${problem}. Leave out what was not measured.`);
}

interface Style {
  readonly colour: string;
  readonly marker: number;
  readonly dash?: string;
}

/** Styles by label in order of appearance; baselines take the colour of a series of their name, else grey. */
function stylesOf(figure: Figure): Map<string, Style> {
  const styles = new Map<string, Style>();
  for (const { label } of figure.panels.flatMap((panel) => panel.series)) {
    const i = styles.size;
    if (!styles.has(label)) styles.set(label, { colour: COLOURS[i % COLOURS.length] as string, marker: i % 4 });
  }
  let baselines = 0;
  for (const { label } of figure.panels.flatMap((panel) => panel.baselines ?? [])) {
    if (styles.has(label)) continue;
    styles.set(label, { colour: '#333333', marker: -1, dash: DASHES[baselines++ % DASHES.length] as string });
  }
  return styles;
}

function drawLegend(figure: Figure, mode: TextMode, width: number) {
  const styles = stylesOf(figure);
  const chosen = figure.panels.find((panel) => panel.chosen !== undefined)?.chosen;
  const entries: [string, string][] = [...styles].map(([label, style]) => {
    const line = `<path d="M0 -4H26" stroke="${style.colour}" stroke-width="2" fill="none"${dashOf(style)}/>`;
    return [label, line + marker(style, 13, -4)];
  });
  if (chosen) entries.push([chosen.label, `<path d="M13 -11V3" stroke="${GREY}" stroke-width="1.5"/>`]);
  let x = 0;
  let y = 14;
  const out: string[] = [];
  for (const [label, sample] of entries) {
    const entryWidth = 32 + textWidth(label, 12) + 22;
    if (x > 0 && x + entryWidth > width) {
      x = 0;
      y += 18;
    }
    out.push(`<g transform="translate(${fixed(x)} ${y})">${sample}${svgText(mode, 32, 0, label, { size: 12 })}</g>`);
    x += entryWidth;
  }
  return { svg: out.join(''), height: y + 4, styles };
}

interface Frame {
  readonly width: number;
  readonly height: number;
  readonly xRange: readonly [number, number];
  readonly yRange: readonly [number, number];
  readonly mode: TextMode;
  readonly yNumbers: boolean;
  readonly styles: ReadonlyMap<string, Style>;
}

function drawPanel(panel: Panel, frame: Frame): string {
  const { width, height, xRange, yRange, mode } = frame;
  const inset = 12;
  const span = xRange[1] - xRange[0] || 1;
  const toX = (x: number) => fixed(inset + ((x - xRange[0]) / span) * (width - 2 * inset));
  const clamp = (y: number) => Math.min(yRange[1], Math.max(yRange[0], y));
  const toY = (y: number) => fixed(height - ((clamp(y) - yRange[0]) / (yRange[1] - yRange[0])) * height);
  const out = [svgText(mode, 0, -8, panel.title, { size: 12.5, bold: true })];
  for (const y of ticks(yRange[0], yRange[1], 5)) {
    out.push(`<path d="M0 ${toY(y)}H${width}" stroke="${GRID}"/>`);
    if (frame.yNumbers)
      out.push(svgText(mode, -8, Number(toY(y)) + 4, label(y), { size: 11, anchor: 'end', fill: GREY }));
  }
  for (const x of ticks(xRange[0], xRange[1], 10).filter(Number.isInteger)) {
    out.push(`<path d="M${toX(x)} ${height}v4" stroke="${GREY}"/>`);
    out.push(svgText(mode, Number(toX(x)), height + 16, label(x), { size: 11, anchor: 'middle', fill: GREY }));
  }
  out.push(`<path d="M0 ${height}H${width}" stroke="${GREY}"/>`);
  if (panel.chosen) out.push(`<path d="M${toX(panel.chosen.x)} 0V${height}" stroke="${GREY}" stroke-width="1.5"/>`);
  for (const { label: name, y } of panel.baselines ?? []) {
    const style = frame.styles.get(name) as Style;
    out.push(
      `<path d="M0 ${toY(y)}H${width}" stroke="${style.colour}" stroke-width="2"${dashOf({ dash: DASHES[0], ...style })}/>`,
    );
  }
  const curves = panel.series.map(({ label: name, points }) => {
    const sorted = [...points].sort((a, b) => a.x - b.x);
    return { points: sorted, style: frame.styles.get(name) as Style };
  });
  // All bands first, so that none lies over a line.
  for (const { points, style } of curves) {
    const upper = points.map(({ x, y, high = y }) => `${toX(x)} ${toY(high)}`);
    const lower = points.map(({ x, y, low = y }) => `${toX(x)} ${toY(low)}`).reverse();
    out.push(`<path d="M${[...upper, ...lower].join('L')}Z" fill="${style.colour}" fill-opacity="0.15"/>`);
  }
  for (const { points, style } of curves) {
    const line = points.map(({ x, y }) => `${toX(x)} ${toY(y)}`).join('L');
    out.push(`<path d="M${line}" fill="none" stroke="${style.colour}" stroke-width="2" stroke-linejoin="round"/>`);
    out.push(...points.map(({ x, y }) => marker(style, Number(toX(x)), Number(toY(y)))));
  }
  return out.join('\n');
}

function dashOf({ dash }: { dash?: string | undefined }): string {
  return dash === undefined ? '' : ` stroke-dasharray="${dash}" stroke-linecap="round"`;
}

/** Shapes tell the curves apart without colours: circle, square, triangle, diamond. */
function marker({ colour, marker: shape }: Style, x: number, y: number): string {
  const paths = ['', 'M-3.5 -3.5h7v7h-7Z', 'M0 -4.6L4.4 3.4H-4.4Z', 'M0 -5L5 0L0 5L-5 0Z'];
  if (shape < 0) return '';
  if (shape === 0) return `<circle cx="${fixed(x)}" cy="${fixed(y)}" r="3.7" fill="${colour}"/>`;
  return `<path transform="translate(${fixed(x)} ${fixed(y)})" d="${paths[shape]}" fill="${colour}"/>`;
}

/** Round numbers (1, 2 or 5 times a power of ten apart) within a range, about `count` of them. */
function ticks(low: number, high: number, count: number): number[] {
  if (low === high) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough * 0.999) ?? 10);
  const out: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) out.push(i * step);
  return out;
}

const label = (value: number): string => String(Math.round(value * 1e6) / 1e6);
