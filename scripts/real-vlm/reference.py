"""What PyTorch makes of two shipped pictures with the weights of an mmproj: tests/models/real-vlm.test.ts compares llama.cpp with it.

python reference.py MMPROJ ../../tests/fixtures/real-vlm.json
"""

import json
import sys

import gguf
import numpy as np
import torch
from PIL import Image

from export import PARTS
from files import put
from splits import HERE
from vision import SIDE, Encoder, Projector

PICTURES = ("peru", "lion")


def read(path):
    """Encoder and projector of an mmproj that export.py wrote."""
    tensors = {
        t.name: torch.from_numpy(np.array(gguf.quants.dequantize(t.data, t.tensor_type), dtype=np.float32))
        for t in gguf.GGUFReader(path).tensors
    }
    encoder = Encoder(1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("v.blk.")))
    state = {
        "patch.weight": tensors["v.patch_embd.weight"], "patch.bias": tensors["v.patch_embd.bias"],
        "position": tensors["v.position_embd.weight"], "first": tensors["v.class_embd"],
        "norm.weight": tensors["v.post_ln.weight"], "norm.bias": tensors["v.post_ln.bias"],
    }  # fmt: skip
    for i in range(len(encoder.blocks)):
        for ours, theirs in PARTS.items():
            for part in ("weight", "bias"):
                state[f"blocks.{i}.{ours}.{part}"] = tensors[f"v.blk.{i}.{theirs}.{part}"]
    encoder.load_state_dict(state)
    up, down = tensors["mm.model.mlp.1.weight"], tensors["mm.model.mlp.3.weight"]
    projector = Projector(len(down), len(up))
    projector.load_state_dict({"gain": tensors["mm.model.mlp.0.weight"], "up.weight": up, "down.weight": down})
    return encoder.eval(), projector.eval()


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
