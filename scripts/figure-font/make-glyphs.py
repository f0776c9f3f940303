"""Writes data/fonts/dejavu-sans.txt: outlines of DejaVu Sans for the text of PNG figures.

A PNG must look the same on machines without any font (containers, CI), so the letters are drawn as paths.

    pip install fonttools && python scripts/figure-font/make-glyphs.py /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf NOTICE

NOTICE is the copyright file of the font (Debian: /usr/share/doc/fonts-dejavu-core/copyright). Made with DejaVu Sans 2.37.
"""
import sys
from pathlib import Path

from fontTools.pens.basePen import BasePen
from fontTools.ttLib import TTFont

RANGES = [
    (0x20, 0x7E),
    (0xA1, 0xAC),
    (0xAE, 0x17F),  # Latin-1 and Extended-A, which byte-level tokenizers use for bytes
    (0x386, 0x3CE),  # Greek
    (0x401, 0x45F),  # Cyrillic
    (0x2070, 0x208E),  # superscripts and subscripts
]
SINGLE = "‐‑‒–—―‘’‚“”„†‡•…‰‹›€№™←↑→↓↔⇒⇥∀∂∃∅∆∈∏∑−√∞∩∪∫≈≠≡≤≥⇥⏎␣▁█■□▲▼●◆★✓✗�"


# A sign that the font lacks is drawn as its nearest one.
STAND_INS = {0x240D: 0x21B5}


def characters(cmap):
    cmap.update({code: cmap[other] for code, other in STAND_INS.items()})
    codes = [c for first, last in RANGES for c in range(first, last + 1)] + [ord(c) for c in SINGLE] + list(STAND_INS)
    return [chr(c) for c in sorted(set(codes)) if c in cmap]


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
        "# Made by scripts/figure-font/make-glyphs.py from DejaVu Sans; do not edit. Changes of the DejaVu project to the",
        "# font are in the public domain, the original font has this notice:",
        "#",
        *("# " + line if line else "#" for line in notice(sys.argv[2])),
        "#",
        "# A line a character: its code point, its advance width, its outline.",
    ]
    for character in characters(cmap):
        name = cmap[ord(character)]
        pen = PathPen(glyphs, scale)
        glyphs[name].draw(pen)
        lines.append(f"{ord(character)} {round(glyphs[name].width * scale)} {''.join(pen.out)}")
    Path(__file__).parents[2].joinpath("data/fonts/dejavu-sans.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


main()
