import { escapeXml } from './escape-xml.js';
import { type Glyph, glyphOf } from './glyphs.js';

/**
 * How a figure is drawn: `outlines` for files, with literal colours and letters as paths that look the same without any
 * font; `text` for the page, with real text and colours that its style sheet sets.
 */
export type TextMode = 'text' | 'outlines';

/** Okabe and Ito 2008 without yellow and black, strongest contrasts first; two more that stay apart from them. */
export const SERIES = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#555555', '#882255'] as const;

/** Which colour each label has: its place in `order`, then the places after it in order of appearance. */
export function coloursOf(labels: Iterable<string>, order: readonly string[] = []): Map<string, number> {
  const places = new Map<string, number>();
  let next = order.length;
  for (const label of labels) {
    if (places.has(label)) continue;
    const known = order.indexOf(label);
    places.set(label, known < 0 ? next++ : known);
  }
  return places;
}
const COLOURS = { ink: '#222222', muted: '#666666', grid: '#E3E3E3', ground: '#FFFFFF' } as const;
export type ColourName = keyof typeof COLOURS | `series-${number}` | `#${string}`;

/** A colour as the mode writes it; series repeat after the eighth, and a literal stays what it is. */
export function colour(mode: TextMode, name: ColourName): string {
  if (name.startsWith('#')) return name;
  if (Object.hasOwn(COLOURS, name)) return paint(mode, name, COLOURS[name as keyof typeof COLOURS]);
  const index = Number(name.slice('series-'.length)) % SERIES.length;
  return paint(mode, `series-${index}`, SERIES[index] as string);
}

const paint = (mode: TextMode, name: string, literal: string): string =>
  mode === 'text' ? `var(--${name},${literal})` : literal;

interface TextStyle {
  /** Height of an em in pixels. */
  readonly size: number;
  /** Defaults to `ink`. */
  readonly fill?: ColourName;
  readonly anchor?: 'start' | 'middle' | 'end';
  readonly bold?: boolean;
  /** Degrees around the anchor point. Defaults to 0 */
  readonly rotate?: number;
}

/** A coordinate with at most two decimals. */
export const fixed = (value: number): string => String(Math.round(value * 100) / 100);

/** What a mark says when it is hovered or focused: an attribute of its element in the page, nothing in a file. */
export const tipOf = (mode: TextMode, text: string): string =>
  mode === 'text' ? ` data-tip="${escapeXml(text)}"` : '';

/** A whole SVG. In a file every outline that the body uses is defined once. */
export function svgDocument(
  mode: TextMode,
  { title, width, height }: { title: string; width: number; height: number },
  body: readonly string[],
): string {
  const size = `width="${fixed(width)}" height="${fixed(height)}" viewBox="0 0 ${fixed(width)} ${fixed(height)}"`;
  const inner = body.join('\n');
  const ground = `<rect width="${fixed(width)}" height="${fixed(height)}" fill="${colour(mode, 'ground')}"/>`;
  if (mode === 'text') {
    const root = `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="sans-serif" role="group" aria-label="${escapeXml(title)}">`;
    return `${root}\n${ground}\n${inner}\n</svg>\n`;
  }
  const codes = [...new Set([...inner.matchAll(/"#g([0-9a-f]+)"/g)].map((match) => match[1] as string))].sort();
  const outlines = codes.map((code) => {
    const { path } = glyph(String.fromCodePoint(Number.parseInt(code, 16)));
    return `<path id="g${code}" d="${path}"/>`;
  });
  // xlink:href, because programs that make papers do not all know the plain one.
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" ${size} role="img">`,
    `<title>${escapeXml(title)}</title>`,
    `<defs>${outlines.join('\n')}</defs>`,
    ground,
    inner,
    '</svg>\n',
  ].join('\n');
}

/** Width in pixels as set in the outlines; other sans-serif fonts come close. */
export function textWidth(text: string, size: number): number {
  return ([...outlined(text)].reduce((sum, character) => sum + glyph(character).advance, 0) * size) / 1000;
}

/** Breaks at spaces into lines of at most `width` pixels; a longer word keeps a line of its own. */
export function wrapText(text: string, size: number, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && textWidth(`${last} ${word}`, size) <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** Cut to `width` pixels, with an ellipsis where something is missing. */
export function fitText(text: string, size: number, width: number): string {
  if (textWidth(text, size) <= width) return text;
  const characters = [...text.slice(0, 200)];
  while (characters.length > 0 && textWidth(`${characters.join('')}…`, size) > width) characters.pop();
  return `${characters.join('')}…`;
}

/** The size, at most `size`, at which a text is at most `width` pixels long. */
export function fittingSize(text: string, size: number, width: number): number {
  return Math.min(size, (size * width) / textWidth(text, size));
}

/** One line of text with its base line at `y`. */
export function svgText(mode: TextMode, x: number, y: number, text: string, style: TextStyle): string {
  const { size, anchor = 'start', bold = false, rotate = 0 } = style;
  const fill = colour(mode, style.fill ?? 'ink');
  const turn = rotate === 0 ? '' : ` rotate(${rotate})`;
  if (mode === 'text') {
    const weight = bold ? ' font-weight="bold"' : '';
    return `<text transform="translate(${fixed(x)} ${fixed(y)})${turn}" font-size="${size}" fill="${fill}" text-anchor="${anchor}"${weight}>${escapeXml(text)}</text>`;
  }
  const scale = size / 1000;
  let pen = (-textWidth(text, size) / scale) * { start: 0, middle: 0.5, end: 1 }[anchor];
  const letters = [...outlined(text)].map((character) => {
    const { advance, path } = glyph(character);
    const letter = `<use xlink:href="#g${character.codePointAt(0)?.toString(16)}" x="${Math.round(pen)}"/>`;
    pen += advance;
    return path === '' ? '' : letter;
  });
  // The table has one weight; a thin stroke makes the other.
  const stroke = bold ? ` stroke="${fill}" stroke-width="45"` : '';
  return `<g transform="translate(${fixed(x)} ${fixed(y)})${turn} scale(${scale})" fill="${fill}"${stroke}>${letters.join('')}</g>`;
}

/** With the code points of characters that have no outline, such as U+4E2D, in their place; a space between two of them. */
function outlined(text: string): string {
  let out = '';
  let escaped = false;
  for (const character of text.normalize('NFC').replace(/[\p{Cc}\p{Cs}]/gu, '')) {
    const known = glyphOf(character) !== undefined;
    out += known ? character : `${escaped ? ' ' : ''}U+${hex(character)}`;
    escaped = !known;
  }
  return out;
}

const hex = (character: string): string =>
  (character.codePointAt(0) as number).toString(16).toUpperCase().padStart(4, '0');

function glyph(character: string): Glyph {
  const found = glyphOf(character);
  if (found === undefined) throw new Error(`The glyph table has no ${JSON.stringify(character)}.`);
  return found;
}
