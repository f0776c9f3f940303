"""The picture encoder: DINOv2 ViT-S/14 at 126 px, and the projector that mtmd calls nemotron_v2_vl."""

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import nn

BLOCKS = 10  # of the 12; so that the encoder fits in 16 MB with five bits a weight
FROZEN = 8  # first blocks, never trained
SIDE, PATCH, WIDTH, HEADS, HIDDEN = 126, 14, 384, 6, 1536
GRID = SIDE // PATCH
MERGE = 3
ROWS = (GRID // MERGE) ** 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """A pre-norm transformer block; the checkpoint's LayerScale is multiplied into `out` and `down` when it is read."""

    def __init__(self):
        super().__init__()
        self.ln1 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.ln2 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x):
        batch, length, _ = x.shape
        normed = self.ln1(x)
        heads = (f(normed).view(batch, length, HEADS, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(batch, length, WIDTH)
        x = x + self.out(mixed)
        # ggml's GELU is the tanh one.
        return x + self.down(F.gelu(self.up(self.ln2(x)), approximate="tanh"))


class Encoder(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.position = nn.Parameter(torch.zeros(GRID * GRID, WIDTH))
        self.first = nn.Parameter(torch.zeros(WIDTH))  # class token, its position added
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def embed(self, pixels):
        """[batch, 3, SIDE, SIDE] in 0..1 -> [batch, 1 + GRID * GRID, WIDTH]."""
        mean, std = (torch.tensor(c).view(1, 3, 1, 1) for c in (MEAN, STD))
        grid = self.patch((pixels - mean) / std).flatten(2).transpose(1, 2) + self.position
        return torch.cat([self.first.expand(len(grid), 1, WIDTH), grid], 1)

    def run(self, x, begin=0, end=None):
        for block in self.blocks[begin:end]:
            x = block(x)
        return x

    def finish(self, x):
        """States after the last block -> the grid [batch, GRID * GRID, WIDTH] that the projector reads."""
        return self.norm(x)[:, 1:]

    def forward(self, pixels):
        return self.finish(self.run(self.embed(pixels)))


def merge(grid):
    """Every MERGE x MERGE patches become one row, as llama.cpp's build_patch_merge_permute orders them."""
    batch, side = len(grid), GRID // MERGE
    tiles = grid.view(batch, side, MERGE, side, MERGE, WIDTH).transpose(2, 3)
    return tiles.reshape(batch, ROWS, MERGE * MERGE * WIDTH)


class Projector(nn.Module):
    def __init__(self, width, hidden=1024):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(MERGE * MERGE * WIDTH))
        self.up = nn.Linear(MERGE * MERGE * WIDTH, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, grid, dropout=0.0):
        rows = F.dropout(F.rms_norm(merge(grid), self.gain.shape, self.gain, 1e-6), dropout, self.training)
        return self.down(F.dropout(F.relu(self.up(rows)).square(), dropout, self.training))


def pretrained(path, blocks=BLOCKS):
    """DINOv2's weights out of the ONNX file, positions interpolated to the grid as transformers does."""
    model = onnx.load(path)
    named = {t.name: t for t in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}

    def array(name):
        return torch.from_numpy(np.array(numpy_helper.to_array(named[name]), dtype=np.float32))

    # The matrices of linear layers lost their names in the export: the addition of the named bias leads to them.
    linear = {}
    for node in model.graph.node:
        bias = [name for name in node.input if name.startswith("backbone.encoder.layer.") and name.endswith(".bias")]
        if node.op_type == "Add" and bias:
            product = producers[next(name for name in node.input if name != bias[0])]
            if product.op_type == "MatMul":
                matrix = next(name for name in product.input if name in named)
                linear[bias[0].removesuffix(".bias")] = (array(matrix).T.contiguous(), array(bias[0]))
    encoder = Encoder(blocks)
    state = {}
    for part in ("weight", "bias"):
        state[f"patch.{part}"] = array(f"backbone.embeddings.patch_embeddings.projection.{part}")
        state[f"norm.{part}"] = array(f"backbone.layernorm.{part}")
    # Names that the exporter gave to the two halves of the position embeddings.
    grid = array("onnx::Reshape_1962").reshape(1, 37, 37, WIDTH).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(GRID, GRID), mode="bicubic", align_corners=False)
    state["position"] = grid.permute(0, 2, 3, 1).reshape(GRID * GRID, WIDTH)
    state["first"] = (array("backbone.embeddings.cls_token") + array("onnx::Concat_1957").reshape(1, 1, WIDTH)).flatten()
    parts = {
        "q": "attention.attention.query", "k": "attention.attention.key", "v": "attention.attention.value",
        "out": "attention.output.dense", "up": "mlp.fc1", "down": "mlp.fc2",
    }  # fmt: skip
    for i in range(blocks):
        layer = f"backbone.encoder.layer.{i}"
        scales = {"out": array(f"{layer}.layer_scale1.lambda1"), "down": array(f"{layer}.layer_scale2.lambda1")}
        for ours, theirs in parts.items():
            weight, bias = linear[f"{layer}.{theirs}"]
            scale = scales.get(ours, torch.ones(len(bias)))
            state[f"blocks.{i}.{ours}.weight"], state[f"blocks.{i}.{ours}.bias"] = weight * scale[:, None], bias * scale
        for ours, theirs in (("ln1", "norm1"), ("ln2", "norm2")):
            for part in ("weight", "bias"):
                state[f"blocks.{i}.{ours}.{part}"] = array(f"{layer}.{theirs}.{part}")
    encoder.load_state_dict(state)
    return encoder
