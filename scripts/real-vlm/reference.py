"""What PyTorch makes of two shipped pictures with the weights of an mmproj: tests/models/real-vlm.test.ts compares llama.cpp with it.

python reference.py MMPROJ ../../tests/fixtures/real-vlm.json
"""

import json
import sys

import numpy as np
import torch
from PIL import Image

from export import read
from files import put
from splits import HERE
from vision import SIDE

PICTURES = ("peru", "lion")


def enlarged(name):
    """A shipped drawing at the encoder's own size, every pixel the nearest: nothing is left to a resampling filter."""
    pixels = np.asarray(Image.open(HERE.parents[1] / "data" / "images" / "twemoji" / f"{name}.png").convert("RGB"))
    at = np.arange(SIDE) * len(pixels) // SIDE
    return torch.from_numpy(pixels[at][:, at].copy()).permute(2, 0, 1).float()[None] / 255


def main():
    encoder, projector = read(sys.argv[1])
    with torch.inference_mode():
        rows = {name: projector(encoder(enlarged(name)))[0] for name in PICTURES}
    content = {name: [[round(value, 4) for value in row] for row in r.tolist()] for name, r in rows.items()}
    put(sys.argv[2], lambda file: file.write((json.dumps(content) + "\n").encode()))


if __name__ == "__main__":
    main()
