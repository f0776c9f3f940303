import { GLYPHS } from './glyphs.js';

/** How letters are drawn: as `<text>` in a generic font, or as outlines that need no font. */
export type TextMode = 'text' | 'outlines';

export interface TextStyle {
  /** Height of an em in pixels. */
  readonly size: number;
  readonly fill?: string;
  readonly anchor?: 'start' | 'middle' | 'end';
  readonly bold?: boolean;
  /** Degrees around the anchor point. Defaults to 0 */
  readonly rotate?: number;
}

const INK = '#222222';
/** What stands for a character that has no outline: an empty box. */
const UNKNOWN = '□';

/** Text safe inside XML and HTML, in elements and in quoted attributes; characters XML forbids are dropped. */
export function escapeXml(text: string): string {
  return (
    text
      // biome-ignore lint/suspicious/noControlCharactersInRegex: XML 1.0 forbids these characters even when escaped
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Surrogate}/gu, '')
      .replace(/&/g, '&amp;')
      .replace(/</g, '&lt;')
      .replace(/>/g, '&gt;')
      .replace(/"/g, '&quot;')
      .replace(/'/g, '&#39;')
  );
}

/** A coordinate with at most two decimals. */
export const fixed = (value: number): string => String(Math.round(value * 100) / 100);

/** Width in pixels as set in the outlines; other sans-serif fonts come close. */
export function textWidth(text: string, size: number): number {
  return ([...text].reduce((sum, character) => sum + glyphOf(character).advance, 0) * size) / 1000;
}

/** Breaks at blanks into lines of at most `width` pixels; a longer word keeps a line of its own. */
export function wrapText(text: string, size: number, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && textWidth(`${last} ${word}`, size) <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** One line of text with its base line at `y`. */
export function svgText(mode: TextMode, x: number, y: number, text: string, style: TextStyle): string {
  const { size, fill = INK, anchor = 'start', bold = false, rotate = 0 } = style;
  const turn = rotate === 0 ? '' : ` rotate(${rotate})`;
  if (mode === 'text') {
    const weight = bold ? ' font-weight="bold"' : '';
    return `<text transform="translate(${fixed(x)} ${fixed(y)})${turn}" font-size="${size}" fill="${fill}" text-anchor="${anchor}"${weight}>${escapeXml(text)}</text>`;
  }
  let pen = -textWidth(text, size) * { start: 0, middle: 0.5, end: 1 }[anchor];
  const scale = size / 1000;
  const letters = [...text].map((character) => {
    const { advance, path } = glyphOf(character);
    const letter = `<path transform="translate(${fixed(pen)}) scale(${scale})" d="${path}"/>`;
    pen += advance * scale;
    return path === '' ? '' : letter;
  });
  // The table has one weight; a thin stroke makes the other.
  const stroke = bold ? ` stroke="${fill}" stroke-width="45"` : '';
  return `<g transform="translate(${fixed(x)} ${fixed(y)})${turn}" fill="${fill}"${stroke}>${letters.join('')}</g>`;
}

function glyphOf(character: string) {
  const glyph = GLYPHS.get(character) ?? GLYPHS.get(UNKNOWN);
  if (glyph === undefined) throw new Error(`The glyph table has no ${UNKNOWN}.`);
  return glyph;
}
