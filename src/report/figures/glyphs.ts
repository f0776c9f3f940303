import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../util/package-root.js';

/** In thousandths of an em; the outline is SVG path data, y downwards from the base line. */
export interface Glyph {
  readonly advance: number;
  readonly path: string;
}

/** Made by scripts/figure-font/make-glyphs.py. */
const FILE = join(PACKAGE_ROOT, 'data', 'fonts', 'dejavu-sans.txt');

let glyphs: ReadonlyMap<string, Glyph> | undefined;

/** The outline of a character, if the table has one. */
export function glyphOf(character: string): Glyph | undefined {
  glyphs ??= readGlyphs();
  return glyphs.get(character);
}

function readGlyphs(): Map<string, Glyph> {
  const lines = readFileSync(FILE, 'utf8').split('\n');
  return new Map(
    lines
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => {
        const [code, advance, ...path] = line.trimEnd().split(' ');
        return [String.fromCodePoint(Number(code)), { advance: Number(advance), path: path.join(' ') }];
      }),
  );
}
