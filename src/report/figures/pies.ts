import { XpatchError } from '../../util/errors.js';
import type { Pies } from '../report.js';
import { visibleText } from '../visible.js';
import { drawSheet, PHONE_WIDTH } from './sheet.js';
import { type ColourName, colour, coloursOf, fixed, SERIES, svgText, type TextMode, tipOf, wrapText } from './svg.js';

type Slice = Pies['pies'][number]['slices'][number];

const RADIUS = 78;
const CELL = { width: 230, height: 2 * RADIUS + 98 };
/** Names above the circle and the number below it. */
const CENTRE = { x: CELL.width / 2, y: RADIUS + 48 };

/**
 * Pies as SVG, three a row, with one legend. Every slice has a colour and a hatching of its label, and its percentage next to it.
 *
 * @param mode Defaults to `outlines`.
 * @param phone One pie a row, as narrow as a phone. Defaults to false.
 * @throws {XpatchError} INVALID_ARGUMENT when there is no pie, a pie has no counts, or a count is not a number from 0
 */
export function piesToSvg(
  { title, pies, notes, colourOrder }: Pies,
  mode: TextMode = 'outlines',
  phone = false,
): string {
  for (const pie of pies) requireCounts(title, pie);
  if (pies.length === 0) throw new XpatchError('INVALID_ARGUMENT', `"${title}" has no pies. Leave it out.`);
  const labels = coloursOf(
    pies.flatMap((pie) => pie.slices.map((slice) => slice.label)),
    colourOrder,
  );
  const columns = phone ? 1 : Math.min(3, pies.length);
  const left = phone ? PHONE_WIDTH / 2 : CENTRE.x;
  const svg = pies.map((pie, i) => {
    const x = (i % columns) * CELL.width + left;
    const y = Math.floor(i / columns) * CELL.height + CENTRE.y;
    return `<g transform="translate(${fixed(x)} ${fixed(y)})">${drawPie(pie, labels, mode)}</g>`;
  });
  return drawSheet(mode, {
    title,
    width: phone ? PHONE_WIDTH : Math.max(460, columns * CELL.width),
    legend: [...labels].map(([label, i]) => [label, swatch(i, mode)]),
    plot: { svg, height: Math.ceil(pies.length / columns) * CELL.height },
    notes,
  });
}

function requireCounts(title: string, { title: name, slices }: Pies['pies'][number]): void {
  const counts = slices.map((slice) => slice.count);
  if (counts.every((count) => Number.isFinite(count) && count >= 0) && counts.some((count) => count > 0)) return;
  throw new XpatchError(
    'INVALID_ARGUMENT',
    `The pie "${name}" of "${title}" needs counts from 0, at least one of them above it. Leave out what was not counted.`,
  );
}

function drawPie({ title, slices }: Pies['pies'][number], labels: ReadonlyMap<string, number>, mode: TextMode): string {
  const total = slices.reduce((sum, slice) => sum + slice.count, 0);
  const names = wrapText(title, 12.5, CELL.width - 20);
  const out = names.map((line, i) =>
    svgText(mode, 0, -RADIUS - 24 - (names.length - 1 - i) * 15, line, { size: 12.5, bold: true, anchor: 'middle' }),
  );
  let done = 0;
  for (const slice of slices) {
    if (slice.count === 0) continue;
    const from = 2 * Math.PI * (done / total);
    done += slice.count;
    const to = 2 * Math.PI * (done / total);
    const share = slice.count / total;
    out.push(
      `<g${tipOf(mode, describe(slice, total))}>${drawSlice(labels.get(slice.label) as number, from, to, mode)}</g>`,
    );
    if (share >= 0.03) {
      const [x, y] = at((from + to) / 2, RADIUS + 6);
      // Beside the circle: the text ends or starts there, and hangs below it in the lower half.
      const side = Math.sin((from + to) / 2);
      const anchor = Math.abs(side) < 0.3 ? 'middle' : side > 0 ? 'start' : 'end';
      const drop = 4 - 6 * Math.cos((from + to) / 2);
      out.push(svgText(mode, x, y + drop, percent(share), { size: 11, anchor }));
    }
  }
  out.push(svgText(mode, 0, RADIUS + 32, `n = ${total}`, { size: 11, anchor: 'middle', fill: 'muted' }));
  return out.join('');
}

const percent = (share: number): string => `${Math.round(100 * share)} %`;

function describe({ label, count, examples = [] }: Slice, total: number): string {
  const some = examples.slice(0, 8).map(visibleText);
  return `${label}: ${count} of ${total} (${percent(count / total)})${some.length > 0 ? `, e.g. ${some.join(', ')}` : ''}`;
}

/** A place at an angle clockwise from the top. */
const at = (angle: number, radius: number): [x: number, y: number] => [
  radius * Math.sin(angle),
  -radius * Math.cos(angle),
];
const point = (angle: number, radius: number): string => at(angle, radius).map(fixed).join(' ');

function arc(from: number, to: number, radius: number): string {
  return `A${radius} ${radius} 0 ${to - from > Math.PI ? 1 : 0} 1 ${point(to, radius)}`;
}

/** Hatchings by label: none, arcs, spokes, dotted arcs, arcs and spokes. Lines of a slice need no clipping. */
const HATCHINGS = [{}, { arcs: true }, { spokes: true }, { arcs: true, dots: true }, { arcs: true, spokes: true }];

function drawSlice(index: number, from: number, to: number, mode: TextMode): string {
  const fill = colour(mode, seriesOf(index));
  const ground = colour(mode, 'ground');
  const { arcs, spokes, dots } = hatchingOf(index);
  // An arc from a point to itself would draw nothing.
  const end = Math.min(to, from + 2 * Math.PI - 1e-3);
  const whole = to - from > 2 * Math.PI - 1e-6;
  const start = whole ? `M${point(from, RADIUS)}` : `M0 0L${point(from, RADIUS)}`;
  const out = [`<path d="${start}${arc(from, end, RADIUS)}Z" fill="${fill}" stroke="${ground}" stroke-width="1.5"/>`];
  const lines: string[] = [];
  if (arcs) for (let r = 10; r < RADIUS; r += 8) lines.push(`M${point(from, r)}${arc(from, end, r)}`);
  if (spokes) {
    const step = Math.PI / 30;
    for (let k = Math.ceil(from / step); k * step < to; k++)
      lines.push(`M${point(k * step, 22)}L${point(k * step, RADIUS)}`);
  }
  if (lines.length > 0) out.push(hatch(lines.join(''), dots === true, ground));
  return out.join('');
}

function swatch(index: number, mode: TextMode): string {
  const { arcs, spokes, dots } = hatchingOf(index);
  const lines = [
    ...(arcs ? [1, 2].map((i) => `M0 ${-11 + i * 4.7}h26`) : []),
    ...(spokes ? [1, 2, 3, 4].map((i) => `M${i * 5.2} -11v14`) : []),
  ];
  const rect = `<rect y="-11" width="26" height="14" fill="${colour(mode, seriesOf(index))}"/>`;
  return rect + (lines.length > 0 ? hatch(lines.join(''), dots === true, colour(mode, 'ground')) : '');
}

const seriesOf = (index: number): ColourName => `series-${index % SERIES.length}`;
const hatchingOf = (index: number): { arcs?: boolean; spokes?: boolean; dots?: boolean } =>
  HATCHINGS[(index + Math.floor(index / SERIES.length)) % HATCHINGS.length] ?? {};
const hatch = (path: string, dots: boolean, paint: string): string =>
  `<path d="${path}" fill="none" stroke="${paint}" stroke-width="${dots ? 2 : 1.2}"${dots ? ' stroke-dasharray="0 5" stroke-linecap="round"' : ''}/>`;
