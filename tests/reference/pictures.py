"""The pictures of the vision-language prompts, in the sizes that reach the encoders unscaled.

A model's own preprocessing would resize anything else, and two resizers never agree to the last bit: the square ones
are as large as the LLaVA towers' input; a grid one has sides that are whole numbers of merged patches.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

FOLDER = Path(__file__).resolve().parent.parent / 'fixtures' / 'models' / 'pictures'


def _picture(width, height, seed):
    """Smooth colours, a disc and a bar, and a little noise: no two patches alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.stack([255 * x / width, 255 * y / height, 255 - 127 * (x / width + y / height)], axis=-1)
    image = Image.fromarray(ramp.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    colours = [tuple(int(v) for v in rng.integers(0, 256, 3)) for _ in range(2)]
    left, top = (int(rng.integers(0, side // 2)) for side in (width, height))
    draw.ellipse([left, top, left + width // 2, top + height // 2], fill=colours[0])
    draw.rectangle([width // 3, 2 * height // 3, width - 2, 2 * height // 3 + height // 6], fill=colours[1])
    noisy = np.asarray(image).astype(np.int64) + rng.integers(-12, 13, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


# file: (width, height, seed)
PICTURES = {
    'square-a.png': (32, 32, 1),
    'square-b.png': (32, 32, 2),
    'grid-a.png': (64, 48, 3),
    'grid-b.png': (48, 80, 4),
    'wide.png': (128, 32, 5),
    'tall.png': (48, 144, 6),
    'tiles-a.png': (64, 32, 7),
    'tiles-b.png': (64, 64, 8),
    'patches.png': (60, 30, 9),
}
SQUARE = ['square-a.png', 'square-b.png']
GRID = ['grid-a.png', 'grid-b.png']
# Longer than a window of Qwen2.5-VL's encoder, 112 pixels.
WINDOWS = ['wide.png', 'tall.png']
# Two and four tiles of 32 x 32.
TILES = ['tiles-a.png', 'tiles-b.png']


def write_pictures():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, spec in PICTURES.items():
        _picture(*spec).save(FOLDER / name)


def normalise(image, mean, std):
    """Pixel values [3, height, width], normalised per channel."""
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def load_pixels(name, mean, std):
    return normalise(Image.open(FOLDER / name), mean, std)


def load_tiles(name, side, resample, mean, std):
    """Tiles of side x side, line by line, and the whole picture reduced to one [tiles + 1, 3, side, side].

    mtmd reduces pictures by PIL's arithmetic to the bit, so that PIL is the reference for the last one.
    """
    image = Image.open(FOLDER / name)
    corners = [(x, y) for y in range(0, image.height, side) for x in range(0, image.width, side)]
    tiles = [image.crop((x, y, x + side, y + side)) for x, y in corners]
    return torch.stack([normalise(tile, mean, std) for tile in [*tiles, image.resize((side, side), resample)]])
