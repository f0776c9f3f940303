import { escapeXml } from '../figures/escape-xml.js';
import { visibleText } from '../visible.js';

/** A piece of a token: its own text, or the sign for something that cannot be seen. */
export interface TokenPiece {
  readonly text: string;
  readonly sign: boolean;
}

const SIGNS = /(␣+|[⏎␍⇥∅]|\\u\{[0-9a-f]+\})/;

/** What a token looks like in a page, in pieces, so that the signs can be set apart from the letters. */
export function tokenPieces(text: string): TokenPiece[] {
  // A combining character needs something to stand on, or it lands on its neighbour.
  const visible = visibleText(text).replace(/^\p{M}/u, '◌$&');
  return visible
    .split(SIGNS)
    .map((piece, i) => ({ text: piece, sign: i % 2 === 1 }))
    .filter((piece) => piece.text !== '');
}

/** A token as plain text, e.g. for labels that are read aloud. */
export const tokenLabel = (text: string): string =>
  tokenPieces(text)
    .map((piece) => piece.text)
    .join('');

/** A token as HTML: escaped, signs in `<i>`, isolated from the direction of the text around it. */
export function tokenHtml(text: string): string {
  const pieces = tokenPieces(text).map((p) => (p.sign ? `<i>${escapeXml(p.text)}</i>` : escapeXml(p.text)));
  return `<bdi class="token">${pieces.join('')}</bdi>`;
}

/**
 * Text of a report as HTML: control and format characters are written as their numbers, so that they can neither vanish
 * nor turn the text around; spaces, line breaks and tabs stay.
 */
export function textHtml(text: string): string {
  return escapeXml(text.replace(/[^\P{C}\n\t]/gu, (c) => `\\u{${(c.codePointAt(0) as number).toString(16)}}`));
}

/** 63.4 %, 0.52 %, 3.1e-5 %: three digits or fewer, at every size. */
export function percent(probability: number): string {
  const value = probability * 100;
  if (value >= 99.95) return '100 %';
  if (value >= 10) return `${value.toFixed(1)} %`;
  if (value >= 0.01) return `${value.toFixed(2)} %`;
  return value === 0 ? '0 %' : `${value.toExponential(1)} %`;
}

/** JSON that a script element can hold: nothing in it looks like a tag, lone surrogates are escaped. */
export const json = (value: unknown): string =>
  JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
