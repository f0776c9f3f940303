"""The rendered drawings (see render.mjs), their split by style, and the augmentation used in training."""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

CACHE = Path(__file__).parent / "cache"
HELD_OUT = "twemoji"  # never trained on

META = json.loads((CACHE / "pictures.json").read_text())
PIXELS = (
    torch.from_numpy(np.fromfile(CACHE / "pictures.rgb", dtype=np.uint8).reshape(len(META), 64, 64, 3).copy())
    .permute(0, 3, 1, 2)
    .contiguous()
)
ENTITIES = list(dict.fromkeys(item["entity"] for item in META))
ENTITY_INDEX = {entity: i for i, entity in enumerate(ENTITIES)}
DOMAIN = {item["entity"]: item["domain"] for item in META}
LABELS = torch.tensor([ENTITY_INDEX[item["entity"]] for item in META])
IS_FLAG = torch.tensor([item["domain"] == "country" for item in META])


def _by_entity(keep):
    groups = {entity: [] for entity in ENTITIES}
    for i, item in enumerate(META):
        if keep(item):
            groups[item["entity"]].append(i)
    return groups


TRAINED = _by_entity(lambda item: item["style"] != HELD_OUT)
# In evaluation each entity has one picture a style: the first drawing, the one that data/images/ ships.
SHIPPED_HELD_OUT = {entity: ids[:1] for entity, ids in _by_entity(lambda item: item["style"] == HELD_OUT).items()}
SHIPPED_TRAINED = {
    entity: ids[:1] for entity, ids in _by_entity(lambda item: item["style"] in ("noto", "circle-flags")).items()
}


def normalise(pixels):
    """uint8 0..255 -> -1..1 (mean 0.5 and deviation 0.5 in the mmproj file)."""
    return pixels.float() / 127.5 - 1


def augment(ids, strength=1.0):
    """Pictures of these indices, randomly moved, recoloured and partly covered; in -1..1."""
    ids = torch.as_tensor(ids)
    x = PIXELS[ids].float() / 255
    count, flag = len(ids), IS_FLAG[ids]
    factor = torch.where(flag, 0.4, 1.0)

    def spread(*shape):
        return (torch.rand(*shape) * 2 - 1) * strength

    angle = spread(count) * 0.3 * factor
    zoom = 1.0 + spread(count) * 0.22
    wide = zoom * (1 + spread(count) * torch.where(flag, 0.2, 0.1))
    # A flag must not be mirrored: Ireland would become the Ivory Coast.
    wide = wide * torch.where((torch.rand(count) < 0.5) & ~flag, -1.0, 1.0)
    shear = spread(count) * 0.15 * factor
    cos, sin = angle.cos(), angle.sin()
    top = torch.stack([cos * wide, -sin * zoom + shear, spread(count) * 0.15], 1)
    bottom = torch.stack([sin * wide, cos * zoom, spread(count) * 0.15], 1)
    grid = F.affine_grid(torch.stack([top, bottom], 1), x.shape, align_corners=False)
    x = 1 - F.grid_sample(1 - x, grid, align_corners=False, padding_mode="zeros")

    # Colours: flags keep their hue, drawings may lean towards grey, another channel balance or another contrast.
    scale = factor.view(-1, 1, 1, 1)
    x = x * (1 + spread(count, 3, 1, 1) * (0.1 + 0.1 * scale)) + spread(count, 3, 1, 1) * 0.06
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * (1 + spread(count, 1, 1, 1) * 0.35) + mean
    grey = torch.rand(count, 1, 1, 1) * 0.5 * strength * torch.where(flag, 0.2, 1.0).view(-1, 1, 1, 1)
    x = x * (1 - grey) + x.mean(1, keepdim=True) * grey
    # Blur a third of them: drawing sets differ most in fine lines and shading.
    soft = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    x = torch.where((torch.rand(count) < 0.33 * strength).view(-1, 1, 1, 1), soft, x)
    for row in torch.nonzero(torch.rand(count) < 0.3 * strength).flatten().tolist():
        top_left = torch.randint(0, 50, (2,)).tolist()
        size = int(torch.randint(8, 18, ()))
        x[row, :, top_left[0] : top_left[0] + size, top_left[1] : top_left[1] + size] = torch.rand(3, 1, 1)
    x = x + torch.randn_like(x) * 0.03 * torch.rand(count, 1, 1, 1)
    return x.clamp(0, 1) * 2 - 1
