"""Writes src/report/glyphs.ts: outlines of DejaVu Sans for the text of PNG figures.

A PNG must look the same on machines without any font (containers, CI), so the letters are drawn as paths.

    pip install fonttools && python scripts/figure-font/make-glyphs.py /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf NOTICE

NOTICE is the copyright file of the font (Debian: /usr/share/doc/fonts-dejavu-core/copyright). Made with DejaVu Sans 2.37.
"""
import sys
from pathlib import Path

from fontTools.pens.basePen import BasePen
from fontTools.ttLib import TTFont

CHARACTERS = [chr(c) for c in range(0x20, 0x7F)] + [chr(c) for c in range(0xC0, 0x100)] + list("·±°§«»–—‘’“”…→≤≥≈−□")


class PathPen(BasePen):
    """Quadratic SVG path in thousandths of an em, y downwards."""

    def __init__(self, glyphs, scale):
        super().__init__(glyphs)
        self.scale = scale
        self.out = []

    def put(self, command, *points):
        numbers = [str(round(v)) for x, y in points for v in (x * self.scale, -y * self.scale)]
        self.out.append(command + " ".join(numbers))

    def _moveTo(self, p):
        self.put("M", p)

    def _lineTo(self, p):
        self.put("L", p)

    def _qCurveToOne(self, control, p):
        self.put("Q", control, p)

    def _closePath(self):
        self.out.append("Z")


def notice(path):
    text = Path(path).read_text(encoding="utf-8")
    start = text.index("Copyright (c) 2003 by Bitstream")
    lines = text[start : text.index("Files: debian/*")].strip().splitlines()
    return [line.strip() if line.strip() != "." else "" for line in lines]


def main():
    font = TTFont(sys.argv[1])
    glyphs, cmap = font.getGlyphSet(), font.getBestCmap()
    scale = 1000 / font["head"].unitsPerEm
    lines = [
        "// Made by scripts/figure-font/make-glyphs.py from DejaVu Sans; do not edit. Changes of the DejaVu project to the",
        "// font are in the public domain, the original font has this notice:",
        "//",
        *("// " + line if line else "//" for line in notice(sys.argv[2])),
        "",
        "/** A line a character: its code point, its advance width, its outline. */",
        "const TABLE = `",
    ]
    for character in CHARACTERS:
        name = cmap[ord(character)]
        pen = PathPen(glyphs, scale)
        glyphs[name].draw(pen)
        lines.append(f"{ord(character)} {round(glyphs[name].width * scale)} {''.join(pen.out)}")
    lines += [
        "`;",
        "",
        "/** In thousandths of an em; the outline is SVG path data, y downwards from the base line. */",
        "export interface Glyph {",
        "  readonly advance: number;",
        "  readonly path: string;",
        "}",
        "",
        "export const GLYPHS: ReadonlyMap<string, Glyph> = new Map(",
        "  TABLE.trim()",
        "    .split('\\n')",
        "    .map((line): [string, Glyph] => {",
        "      const [code, advance, ...path] = line.split(' ');",
        "      return [String.fromCodePoint(Number(code)), { advance: Number(advance), path: path.join(' ') }];",
        "    }),",
        ");",
    ]
    Path(__file__).parents[2].joinpath("src/report/glyphs.ts").write_text("\n".join(lines) + "\n", encoding="utf-8")


main()
