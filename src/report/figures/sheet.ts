import { drawLegend } from './marks.js';
import { svgDocument, svgText, type TextMode, wrapText } from './svg.js';

const MARGIN = 16;
/** Width of a figure without its margins, so that a phone of 360 pixels shows it at its size. */
export const PHONE_WIDTH = 316;

interface Sheet {
  readonly title: string;
  /** Without the margins. */
  readonly width: number;
  readonly legend: readonly (readonly [label: string, sample: string])[];
  readonly plot: { readonly height: number; readonly svg: readonly string[] };
  readonly notes?: readonly string[] | undefined;
}

/** What all figures share: title, legend, the plot itself (its origin at the left margin), small print, from top to bottom. */
export function drawSheet(mode: TextMode, { title, width, legend, plot, notes = [] }: Sheet): string {
  // Outlines of bold letters are a little wider than their advances say.
  const titles = wrapText(title, 15, 0.97 * width);
  const entries = drawLegend(mode, legend, width);
  const small = notes.flatMap((note) => wrapText(note, 11, width));
  const legendTop = MARGIN + titles.length * 20 + 6;
  const top = legendTop + entries.height + 10;
  const body = [
    ...titles.map((line, i) => svgText(mode, MARGIN, MARGIN + 14 + i * 20, line, { size: 15, bold: true })),
    `<g transform="translate(${MARGIN} ${legendTop})">${entries.svg}</g>`,
    `<g transform="translate(${MARGIN} ${top})">`,
    ...plot.svg,
    '</g>',
    ...small.map((note, i) =>
      svgText(mode, MARGIN, top + plot.height + 14 + i * 16, note, { size: 11, fill: 'muted' }),
    ),
  ];
  const height = top + plot.height + small.length * 16 + MARGIN;
  return svgDocument(mode, { title, width: width + 2 * MARGIN, height }, body);
}
