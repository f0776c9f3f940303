import { XpatchError } from '../../util/errors.js';
import { tickLabel, ticks } from './axes.js';
import { drawMark, type Mark } from './marks.js';
import { drawSheet, PHONE_WIDTH } from './sheet.js';
import {
  type ColourName,
  colour,
  coloursOf,
  fittingSize,
  fixed,
  SERIES,
  svgText,
  type TextMode,
  tipOf,
  wrapText,
} from './svg.js';

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

/** One pair of axes with its curves. */
export interface Panel {
  readonly title: string;
  readonly series: readonly Series[];
  /** Dotted horizontal lines, e.g. the accuracy of the Prompt baseline. */
  readonly baselines?: readonly { readonly label: string; readonly y: number }[];
  /** Vertical lines, e.g. at the layer chosen on validation items, or where two curves cross. */
  readonly verticals?: readonly { readonly label: string; readonly x: number }[];
}

/** One or more panels of line charts on common axes. */
export interface Figure {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly panels: readonly Panel[];
  /** Labels whose colours do not depend on the others here, so that figures of a page agree. Defaults to order of appearance. */
  readonly colourOrder?: readonly string[];
  /** Defaults to 0 to 1, the range of an accuracy. */
  readonly yRange?: readonly [number, number];
  /** Lines of small print below, e.g. what the bands are and n. */
  readonly notes?: readonly string[];
}

const DASHES = ['1 4', '1 4 6 4', '6 4'];
const GAP = { x: 28, y: 34 };
const AXIS = { left: 54, right: 12, bottom: 44 };
/** Height of a line of the x axis's label. */
const LABEL_LINE = 16;
const PANEL_TITLE = 26;

/**
 * Curves as SVG: axes common to all panels, one legend on top, at most three panels a row.
 *
 * @param mode Defaults to `outlines`.
 * @param phone One panel a row, as narrow as a phone. Defaults to false.
 * @throws {XpatchError} INVALID_ARGUMENT for a figure without points, or with a number that is not finite
 */
export function figureToSvg(figure: Figure, mode: TextMode = 'outlines', phone = false): string {
  const { panels, yRange = [0, 1] } = figure;
  const points = panels.flatMap((panel) => panel.series.flatMap((series) => series.points));
  requireFinite(figure, points.length);
  const xs = [...points, ...panels.flatMap(({ verticals = [] }) => verticals)].map(({ x }) => x);
  const xRange = [least(xs), greatest(xs)] as const;
  const columns = phone ? 1 : Math.min(3, panels.length);
  const rows = Math.ceil(panels.length / columns);
  const size = sizeOf(panels.length, phone);
  const width = AXIS.left + columns * size.width + (columns - 1) * GAP.x + AXIS.right;
  const height = rows * (size.height + PANEL_TITLE) + (rows - 1) * GAP.y;
  const styles = stylesOf(figure);
  const whole = points.every(({ x }) => Number.isInteger(x));

  const svg = panels.map((panel, i) => {
    const column = i % columns;
    const x = AXIS.left + column * (size.width + GAP.x);
    const y = Math.floor(i / columns) * (size.height + PANEL_TITLE + GAP.y) + PANEL_TITLE;
    // Numbers on the y axis are at the left column only, on the x axis below every panel.
    const drawn = drawPanel(panel, { ...size, xRange, yRange, mode, yNumbers: column === 0, whole, styles });
    return `<g transform="translate(${fixed(x)} ${fixed(y)})">${drawn}</g>`;
  });
  const axisStyle = { size: 12, anchor: 'middle' } as const;
  const labels = wrapText(figure.xLabel, 12, width - AXIS.left);
  svg.push(
    ...labels.map((label, i) => {
      return svgText(mode, AXIS.left + (width - AXIS.left) / 2, height + 36 + i * LABEL_LINE, label, axisStyle);
    }),
    svgText(mode, 12, height / 2, figure.yLabel, {
      ...axisStyle,
      size: fittingSize(figure.yLabel, axisStyle.size, height),
      rotate: -90,
    }),
  );
  return drawSheet(mode, {
    title: figure.title,
    width,
    legend: legendOf(styles, mode),
    plot: { svg, height: height + AXIS.bottom + (labels.length - 1) * LABEL_LINE },
    notes: figure.notes,
  });
}

function sizeOf(panels: number, phone: boolean): { width: number; height: number } {
  if (phone) return { width: PHONE_WIDTH - AXIS.left - AXIS.right, height: 180 };
  return panels === 1 ? { width: 560, height: 300 } : { width: 250, height: 170 };
}

// A figure may have more numbers than a call has arguments.
const least = (values: readonly number[]): number => values.reduce((a, b) => Math.min(a, b));
const greatest = (values: readonly number[]): number => values.reduce((a, b) => Math.max(a, b));

function requireFinite({ title, panels, yRange = [0, 1] }: Figure, points: number): void {
  const numbers = panels.flatMap(({ series, baselines = [], verticals = [] }) => [
    ...series.flatMap((one) => one.points.flatMap(({ x, y, low = y, high = y }) => [x, y, low, high])),
    ...baselines.map((baseline) => baseline.y),
    ...verticals.map((vertical) => vertical.x),
  ]);
  if (points > 0 && yRange[0] < yRange[1] && numbers.every(Number.isFinite)) return;
  const problem = points === 0 ? 'has no points' : 'has a number that is not finite or an empty range';
  throw new XpatchError('INVALID_ARGUMENT', `The figure "${title}" ${problem}. Leave out what was not measured.`);
}

/** A curve has a mark; a baseline and a vertical line have dashes (none for the first vertical line), and colours where dashes run out. */
interface Style {
  readonly colour: ColourName;
  readonly mark?: Mark;
  readonly dash?: string | undefined;
  readonly upright?: boolean;
}

/** Styles by label; baselines take the colour of a series of their name. */
function stylesOf({ panels, colourOrder }: Figure): Map<string, Style> {
  const styles = new Map<string, Style>();
  const labels = panels.flatMap((panel) => panel.series.map(({ label }) => label));
  for (const [label, i] of coloursOf(labels, colourOrder)) {
    const name: ColourName = `series-${i % SERIES.length}`;
    styles.set(label, { colour: name, mark: { colour: name, shape: i + Math.floor(i / SERIES.length) } });
  }
  let baselines = 0;
  for (const { label } of panels.flatMap((panel) => panel.baselines ?? [])) {
    if (styles.has(label)) continue;
    const ink: ColourName = baselines < DASHES.length ? 'ink' : `series-${styles.size % SERIES.length}`;
    styles.set(label, { colour: ink, dash: DASHES[baselines++ % DASHES.length] });
  }
  let verticals = 0;
  for (const { label } of panels.flatMap((panel) => panel.verticals ?? [])) {
    if (styles.has(uprightKey(label))) continue;
    const dashes = [undefined, ...DASHES];
    const ink: ColourName = verticals < dashes.length ? 'muted' : `series-${styles.size % SERIES.length}`;
    styles.set(uprightKey(label), { colour: ink, dash: dashes[verticals++ % dashes.length], upright: true });
  }
  return styles;
}

/** A vertical line may have the name of a curve without being it. */
const uprightKey = (label: string): string => `|${label}`;

function legendOf(styles: ReadonlyMap<string, Style>, mode: TextMode): [string, string][] {
  return [...styles].map(([label, style]) => {
    if (style.upright) return [label.slice(1), line('M13 -12V4', style, mode, 1.5)];
    return [label, line('M0 -4H26', style, mode) + (style.mark ? drawMark(mode, style.mark, 13, -4) : '')];
  });
}

function line(path: string, style: Style, mode: TextMode, width = 2, attributes = ''): string {
  const dash = style.dash === undefined ? '' : ` stroke-dasharray="${style.dash}" stroke-linecap="round"`;
  return `<path d="${path}" fill="none" stroke="${colour(mode, style.colour)}" stroke-width="${width}" stroke-linejoin="round"${dash}${attributes}/>`;
}

interface Frame {
  readonly width: number;
  readonly height: number;
  readonly xRange: readonly [number, number];
  readonly yRange: readonly [number, number];
  readonly mode: TextMode;
  readonly yNumbers: boolean;
  /** Whether all points are at whole numbers, such as layers, between which there is nothing. */
  readonly whole: boolean;
  readonly styles: ReadonlyMap<string, Style>;
}

function drawPanel(panel: Panel, frame: Frame): string {
  const { width, height, xRange, yRange, mode } = frame;
  const inset = 12;
  const span = xRange[1] - xRange[0] || 1;
  const toX = (x: number) => inset + ((x - xRange[0]) / span) * (width - 2 * inset);
  const clamp = (y: number) => Math.min(yRange[1], Math.max(yRange[0], y));
  const toY = (y: number) => height - ((clamp(y) - yRange[0]) / (yRange[1] - yRange[0])) * height;
  const grid = colour(mode, 'grid');
  const muted = colour(mode, 'muted');
  const small = { size: 11, fill: 'muted' } as const;
  const out = [svgText(mode, 0, -10, panel.title, { size: 12.5, bold: true })];
  for (const y of ticks(yRange[0], yRange[1], 5)) {
    out.push(`<path d="M0 ${fixed(toY(y))}H${width}" stroke="${grid}"/>`);
    if (frame.yNumbers) out.push(svgText(mode, -8, toY(y) + 4, tickLabel(y), { ...small, anchor: 'end' }));
  }
  for (const x of ticks(xRange[0], xRange[1], 10).filter((tick) => !frame.whole || Number.isInteger(tick))) {
    out.push(`<path d="M${fixed(toX(x))} ${height}v4" stroke="${muted}"/>`);
    out.push(svgText(mode, toX(x), height + 16, tickLabel(x), { ...small, anchor: 'middle' }));
  }
  out.push(`<path d="M0 ${height}H${width}" stroke="${muted}"/>`);
  for (const { label, x } of panel.verticals ?? []) {
    const style = frame.styles.get(uprightKey(label)) as Style;
    out.push(line(`M${fixed(toX(x))} 0V${height}`, style, mode, 1.5, tipOf(mode, `${label}: ${tickLabel(x)}`)));
  }
  for (const { label, y } of panel.baselines ?? []) {
    const style = frame.styles.get(label) as Style;
    const tip = tipOf(mode, `${label}: ${describe({ x: 0, y })}`);
    out.push(line(`M0 ${fixed(toY(y))}H${width}`, { dash: DASHES[0], ...style }, mode, 2, tip));
  }
  const curves = panel.series.map(({ label, points }) => {
    const sorted = [...points].sort((a, b) => a.x - b.x);
    return { label, points: sorted, style: frame.styles.get(label) as Style };
  });
  const xs = [...new Set(curves.flatMap(({ points }) => points.map(({ x }) => x)))].sort((a, b) => a - b);
  const at = (x: number, y: number) => `${fixed(toX(x))} ${fixed(toY(y))}`;
  // All bands first, so that none covers a line.
  for (const { points, style } of curves) {
    const bands = runsOf(points, xs).map((run) => {
      const banded = run.filter(({ low, high }) => low !== undefined || high !== undefined);
      const upper = banded.map(({ x, y, high = y }) => at(x, high));
      const lower = banded.map(({ x, y, low = y }) => at(x, low)).reverse();
      return banded.length === 0 ? '' : `M${[...upper, ...lower].join('L')}Z`;
    });
    const path = bands.join('');
    if (path !== '') out.push(`<path d="${path}" fill="${colour(mode, style.colour)}" fill-opacity="0.15"/>`);
  }
  for (const { label, points, style } of curves) {
    if (points.length === 0) continue;
    const path = runsOf(points, xs).map((run) => `M${run.map(({ x, y }) => at(x, y)).join('L')}`);
    out.push(line(path.join(''), style, mode));
    // Smaller where many are in a line, so that they do not run into each other.
    const spacing = (width - 2 * inset) / Math.max(1, points.length - 1);
    const scale = Math.min(1, Math.max(0.45, spacing / 13));
    for (const point of points) {
      const attributes = tipOf(mode, `${label}, ${tickLabel(point.x)}: ${describe(point)}`);
      out.push(drawMark(mode, style.mark as Mark, toX(point.x), toY(point.y), { attributes, scale }));
    }
  }
  return out.join('\n');
}

/** A line must not pass over a place where others of the panel have a point and it has none. */
function runsOf(points: readonly Point[], xs: readonly number[]): Point[][] {
  const runs: Point[][] = [];
  let before = -2;
  for (const point of points) {
    const index = xs.indexOf(point.x);
    if (index > before + 1) runs.push([]);
    runs.at(-1)?.push(point);
    before = index;
  }
  return runs;
}

function describe({ y, low, high }: Point): string {
  const number = (value: number) => tickLabel(Number(value.toPrecision(3)));
  return low === undefined || high === undefined ? number(y) : `${number(y)} [${number(low)}, ${number(high)}]`;
}
