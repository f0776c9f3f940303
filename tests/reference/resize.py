"""Makes tests/fixtures/resize.json: pictures scaled by Pillow, for src/images/resize.ts. Run with Pillow 10.4.0.

Newer releases choose by the sizes whether rows or columns come first, which moves single values by 1; up to then rows came first.
"""

import base64
import json
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

# width, height, and those of the result: enlarged, reduced, and one of each
SIZES = [(1, 1, 7, 5), (20, 10, 13, 17), (37, 53, 53, 37), (64, 48, 31, 7), (3, 50, 11, 4), (300, 2, 41, 19), (16, 16, 16, 9), (9, 9, 27, 9)]


def pixels(width, height, extreme):
    """The same numbers as in tests/unit/resize.test.ts."""
    i = np.arange(width * height * 3, dtype=np.int64)
    values = (i * i * 31 + (i >> 3) * 7) % 256
    if extreme:
        values = (values > 127) * 255
    return values.astype(np.uint8).reshape(height, width, 3)


cases = []
for extreme in (False, True):
    for width, height, to_width, to_height in SIZES:
        scaled = Image.fromarray(pixels(width, height, extreme)).resize((to_width, to_height), Image.BILINEAR)
        data = base64.b64encode(scaled.tobytes()).decode()
        cases.append({'from': [width, height], 'to': [to_width, to_height], 'extreme': extreme, 'data': data})
text = json.dumps({'pillow': PIL.__version__, 'cases': cases}, indent=1)
(Path(__file__).resolve().parent.parent / 'fixtures' / 'resize.json').write_text(text + '\n')
