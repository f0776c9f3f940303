import { type ColourName, colour, fixed, svgText, type TextMode, textWidth } from './svg.js';

/** How the points of a series or category look. */
export interface Mark {
  readonly colour: ColourName;
  /** Index into the shapes: circle, square, triangle, diamond, and so on. */
  readonly shape: number;
  /** Only the outline. Defaults to false. */
  readonly hollow?: boolean;
}

/** Shapes tell marks apart without colours; all of about the same area. */
const SHAPES = [
  'M-3.7 0a3.7 3.7 0 1 0 7.4 0a3.7 3.7 0 1 0 -7.4 0Z',
  'M-3.5 -3.5h7v7h-7Z',
  'M0 -4.6L4.4 3.4H-4.4Z',
  'M0 -5L5 0L0 5L-5 0Z',
  'M0 4.6L4.4 -3.4H-4.4Z',
  'M-1.4 -4.4h2.8v3h3v2.8h-3v3h-2.8v-3h-3v-2.8h3Z',
];
export const SHAPE_COUNT = SHAPES.length;

/** A mark at a place; `attributes` go onto its element as they are. */
export function drawMark(
  mode: TextMode,
  mark: Mark,
  x: number,
  y: number,
  { attributes = '', scale = 1 }: { attributes?: string; scale?: number } = {},
): string {
  const paint = colour(mode, mark.colour);
  const fill = mark.hollow
    ? `fill="${colour(mode, 'ground')}" stroke="${paint}" stroke-width="1.4"`
    : `fill="${paint}"`;
  const path = SHAPES[mark.shape % SHAPES.length];
  const size = scale === 1 ? '' : ` scale(${fixed(scale)})`;
  return `<path transform="translate(${fixed(x)} ${fixed(y)})${size}" d="${path}" ${fill}${attributes}/>`;
}

/** Samples of 26 x 14 pixels around (13, -4) with their names, in as many lines as `width` takes. */
export function drawLegend(
  mode: TextMode,
  entries: readonly (readonly [label: string, sample: string])[],
  width: number,
) {
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
  return { svg: out.join(''), height: entries.length > 0 ? y + 4 : 0 };
}
