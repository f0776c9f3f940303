import { XpatchError } from '../../util/errors.js';
import type { Bars } from '../report.js';
import { tickLabel, ticks } from './axes.js';
import { drawSheet, PHONE_WIDTH } from './sheet.js';
import {
  type ColourName,
  colour,
  coloursOf,
  fitText,
  fixed,
  SERIES,
  svgText,
  type TextMode,
  textWidth,
  tipOf,
} from './svg.js';

const PLOT_WIDTH = 400;
const NUMBERS_WIDTH = 116;
const ROW = 24;
/** Names are above their bars where there is no room beside them. */
const TALL_ROW = 40;
const THICKNESS = 13;
const AXIS = 44;

/**
 * Bars as SVG, one below the other from 0 to 1, with their intervals as lines, names on the left and numbers on the right.
 *
 * @param mode Defaults to `outlines`.
 * @param phone As narrow as a phone. Defaults to false.
 * @throws {XpatchError} INVALID_ARGUMENT without bars, or for a value or an end of an interval that is not from 0 to 1
 */
export function barsToSvg(figure: Bars, mode: TextMode = 'outlines', phone = false): string {
  const { title, xLabel, bars, groupOrder, notes } = figure;
  requireShares(figure);
  const groups = coloursOf(
    bars.map(({ group }) => group),
    groupOrder,
  );
  const paintOf = (group: string): ColourName => `series-${(groups.get(group) as number) % SERIES.length}`;
  const names = phone ? 0 : Math.ceil(Math.max(...bars.map(({ label }) => textWidth(label, 12)))) + 14;
  const plot = phone ? PHONE_WIDTH - 12 : PLOT_WIDTH;
  const row = phone ? TALL_ROW : ROW;
  const width = phone ? PHONE_WIDTH : names + plot + NUMBERS_WIDTH;
  const height = bars.length * row;
  const toX = (value: number) => names + value * plot;

  const svg: string[] = [];
  for (const x of ticks(0, 1, 5)) {
    svg.push(`<path d="M${fixed(toX(x))} 0V${height}" stroke="${colour(mode, 'grid')}"/>`);
    const style = { size: 11, fill: 'muted', anchor: x === 0 ? 'start' : x === 1 ? 'end' : 'middle' } as const;
    svg.push(svgText(mode, toX(x), height + 16, tickLabel(x), style));
  }
  svg.push(svgText(mode, names + plot / 2, height + 36, xLabel, { size: 12, anchor: 'middle' }));
  for (const [i, { label, group, value, low, high }] of bars.entries()) {
    const middle = (i + 1) * row - ROW / 2;
    const top = middle - THICKNESS / 2;
    const text = phone ? middle - 12 : middle + 4;
    const numbers = `${value.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]`;
    const tip = tipOf(mode, `${label}: ${numbers}`);
    // Beside its numbers on a phone: a long name is cut there, and whole where it is pointed at.
    const name = phone ? fitText(label, 12, width - textWidth(numbers, 11) - 8) : label;
    svg.push(
      svgText(mode, phone ? 0 : names - 10, text, name, { size: 12, anchor: phone ? 'start' : 'end' }),
      `<g${tip}><rect x="${fixed(toX(0))}" y="${fixed(top)}" width="${fixed(value * plot)}" height="${THICKNESS}" fill="${colour(mode, paintOf(group))}"/>`,
      `<path d="M${fixed(toX(low))} ${fixed(middle)}H${fixed(toX(high))}m0 -4v8M${fixed(toX(low))} ${fixed(middle - 4)}v8" fill="none" stroke="${colour(mode, 'ink')}" stroke-width="1.5"/></g>`,
      svgText(mode, width, text, numbers, { size: 11, fill: 'muted', anchor: 'end' }),
    );
  }
  const legend = [...groups]
    .sort(([, a], [, b]) => a - b)
    .map(([group]): [string, string] => {
      return [group, `<rect x="0" y="-11" width="26" height="13" fill="${colour(mode, paintOf(group))}"/>`];
    });
  return drawSheet(mode, { title, width, legend, plot: { svg, height: height + AXIS }, notes });
}

function requireShares({ title, bars }: Bars): void {
  const isShare = (value: number) => value >= 0 && value <= 1;
  if (bars.length > 0 && bars.every(({ value, low, high }) => [value, low, high].every(isShare))) return;
  const problem = bars.length === 0 ? 'has no bars' : 'has a number that is not from 0 to 1';
  throw new XpatchError('INVALID_ARGUMENT', `The figure "${title}" ${problem}. Leave out what was not measured.`);
}
