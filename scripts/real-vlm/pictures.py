"""Pictures as tensors: as the product shows them, and augmented."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import splits
from vision import SIDE

STORED = 128
SHIPPED = 64  # side of the drawings that come with xpatch
SHOWN = 224  # every picture of an experiment is scaled to this width first


class Pictures:
    def __init__(self, cache):
        self.meta, self.kinds = splits.load(cache)
        self.pixels = np.memmap(Path(cache) / "pictures.rgb", np.uint8, "r").reshape(-1, STORED, STORED, 3)
        if len(self.pixels) != len(self.meta):
            raise SystemExit(f"{cache}: pictures.rgb and pictures.json do not belong together")

    def of(self, *kinds):
        return [i for i, kind in enumerate(self.kinds) if kind in kinds]

    def stored(self, indices):
        """[n, 3, STORED, STORED] in 0..1"""
        return torch.from_numpy(self.pixels[indices]).permute(0, 3, 1, 2).float() / 255

    def plain(self, indices):
        """As in an experiment on the shipped drawings: 64 pixels, scaled up to 224, and down to what the encoder takes."""
        return resize(resize(resize(self.stored(indices), SHIPPED), SHOWN), SIDE)

    def augmented(self, indices, generator):
        return augment(self.stored(indices), [self.meta[i]["domain"] != "country" for i in indices], generator)


def resize(images, side):
    # The antialiased filter when it shrinks; llama.cpp's, and sharp's, when they enlarge, are close to bicubic.
    return F.interpolate(images, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def augment(images, may_flip, generator):
    """Turned, scaled, moved (flipped unless it is a flag), other light and colours, other resolution, noise; on white."""
    n = len(images)

    def uniform(low, high):
        return torch.rand(n, generator=generator) * (high - low) + low

    angle, scale = uniform(-0.2, 0.2), uniform(0.8, 1.35)
    stretch = uniform(0.88, 1.14)
    flip = torch.where(torch.tensor(may_flip) & (uniform(0, 1) < 0.5), -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    first = torch.stack([cos * flip * stretch, -sin, uniform(-0.15, 0.15)], 1)
    second = torch.stack([sin * flip * stretch, cos, uniform(-0.15, 0.15)], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), (n, 3, SIDE, SIDE), align_corners=False)
    images = 1 - F.grid_sample(1 - images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    for i, (blurred, share) in enumerate(zip(uniform(0, 1).tolist(), uniform(0.35, 0.9).tolist(), strict=True)):
        if blurred < 0.6:
            images[i : i + 1] = resize(resize(images[i : i + 1], round(SIDE * share)), SIDE)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * uniform(0.7, 1.3).view(n, 1, 1, 1)
    images = (images - 0.5) * uniform(0.8, 1.15).view(n, 1, 1, 1) + 0.5 + uniform(-0.08, 0.08).view(n, 1, 1, 1)
    noise = torch.randn(images.shape, generator=generator) * uniform(0, 0.04).view(n, 1, 1, 1)
    return (images + noise).clamp(0, 1)
