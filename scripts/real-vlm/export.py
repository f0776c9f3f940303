"""Writes encoder and projector as an mmproj that stock llama.cpp (mtmd) reads, of the kind nemotron_v2_vl.

That kind has a square picture of one size, no text of its own around it, and drops the class token.

    python export.py mmproj-gemma-first-1-f16.gguf --type q5_0 --language gemma-3-270m-q4_k_m.gguf out.gguf
"""

import argparse

import gguf
import numpy as np
import torch

from files import put
from vision import FROZEN, HEADS, HIDDEN, MEAN, MERGE, PATCH, SIDE, STD, WIDTH, Encoder, Projector

PARTS = {
    "q": "attn_q", "k": "attn_k", "v": "attn_v", "out": "attn_out", "ln1": "ln1", "ln2": "ln2",
    "up": "ffn_up", "down": "ffn_down",
}  # fmt: skip
TYPES = {
    "q8_0": gguf.GGMLQuantizationType.Q8_0, "q5_1": gguf.GGMLQuantizationType.Q5_1,
    "q5_0": gguf.GGMLQuantizationType.Q5_0, "q4_1": gguf.GGMLQuantizationType.Q4_1,
}  # fmt: skip


def tensors(encoder, projector):
    """Names of llama.cpp's clip.cpp -> arrays; matrices of blocks and projector may be quantised, nothing else."""
    weights = {name: value.detach().float().numpy() for name, value in encoder.state_dict().items()}
    result = {
        "v.patch_embd.weight": weights["patch.weight"], "v.patch_embd.bias": weights["patch.bias"],
        "v.position_embd.weight": weights["position"], "v.class_embd": weights["first"],
        "v.post_ln.weight": weights["norm.weight"], "v.post_ln.bias": weights["norm.bias"],
    }  # fmt: skip
    for i in range(len(encoder.blocks)):
        for ours, theirs in PARTS.items():
            for part in ("weight", "bias"):
                result[f"v.blk.{i}.{theirs}.{part}"] = weights[f"blocks.{i}.{ours}.{part}"]
    for name, tensor in (("0", projector.gain), ("1", projector.up.weight), ("3", projector.down.weight)):
        result[f"mm.model.mlp.{name}.weight"] = tensor.detach().float().numpy()
    return result


def read(path, encoder=None):
    """Encoder and projector of an mmproj that this wrote. A given encoder takes the trained parts alone, and no others need be there."""
    tensors = {
        t.name: torch.from_numpy(np.array(gguf.quants.dequantize(t.data, t.tensor_type), dtype=np.float32))
        for t in gguf.GGUFReader(path).tensors
    }
    state = {"norm.weight": tensors["v.post_ln.weight"], "norm.bias": tensors["v.post_ln.bias"]}
    blocks = sorted({int(name.split(".")[2]) for name in tensors if name.startswith("v.blk.")})
    for i in blocks if encoder is None else [block for block in blocks if block >= FROZEN]:
        for ours, theirs in PARTS.items():
            for part in ("weight", "bias"):
                state[f"blocks.{i}.{ours}.{part}"] = tensors[f"v.blk.{i}.{theirs}.{part}"]
    if encoder is None:
        encoder = Encoder(len(blocks))
        state |= {
            "patch.weight": tensors["v.patch_embd.weight"], "patch.bias": tensors["v.patch_embd.bias"],
            "position": tensors["v.position_embd.weight"], "first": tensors["v.class_embd"],
        }  # fmt: skip
        encoder.load_state_dict(state)
    else:
        encoder.load_state_dict(state, strict=False)
    up, down = tensors["mm.model.mlp.1.weight"], tensors["mm.model.mlp.3.weight"]
    projector = Projector(len(down), len(up))
    projector.load_state_dict({"gain": tensors["mm.model.mlp.0.weight"], "up.weight": up, "down.weight": down})
    return encoder.eval(), projector.eval()


def is_trained(name):
    """Whether a tensor differs from what the encoder was before; see FROZEN."""
    return name.startswith(("mm.", "v.post_ln")) or (name.startswith("v.blk.") and int(name.split(".")[2]) >= FROZEN)


def export(encoder, projector, path, language, kind="f16", trained_only=False):
    """`language`: the GGUF file of the language model that the projector was trained for; xpatch refuses another one.
    With `trained_only` it is no model but a start for `train.py --from`."""
    language_name = bytes(gguf.GGUFReader(language).fields["general.name"].parts[-1]).decode()

    def write(file):
        # GGUFWriter opens its file by name.
        writer = gguf.GGUFWriter(file.name, "clip")
        writer.add_name("DINOv2 ViT-S/14, projector trained on names by xpatch")
        writer.add_string("xpatch.language_model", language_name)
        writer.add_bool("clip.has_vision_encoder", True)
        writer.add_string("clip.projector_type", "nemotron_v2_vl")
        writer.add_bool("clip.use_gelu", True)
        numbers = {
            "image_size": SIDE, "patch_size": PATCH, "embedding_length": WIDTH, "feed_forward_length": HIDDEN,
            "block_count": len(encoder.blocks), "attention.head_count": HEADS,
            "projection_dim": projector.down.out_features, "projector.scale_factor": MERGE,
        }  # fmt: skip
        for key, value in numbers.items():
            writer.add_uint32(f"clip.vision.{key}", value)
        writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
        writer.add_array("clip.vision.image_mean", list(MEAN))
        writer.add_array("clip.vision.image_std", list(STD))
        for name, array in tensors(encoder, projector).items():
            if trained_only and not is_trained(name):
                continue
            if array.ndim == 1 or name == "v.position_embd.weight":
                writer.add_tensor(name, array)
            elif array.ndim == 4 or kind == "f16":
                writer.add_tensor(name, array.astype(np.float16))
            else:
                writer.add_tensor(name, gguf.quants.quantize(array, TYPES[kind]), raw_dtype=TYPES[kind])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    put(path, write)


def projector_of(checkpoint):
    state = torch.load(checkpoint, weights_only=True)["projector"]
    hidden, _ = state["up.weight"].shape
    projector = Projector(len(state["down.weight"]), hidden)
    projector.load_state_dict(state)
    return projector.eval()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mmproj", help="a GGUF file that train.py wrote")
    parser.add_argument("--projector", help="checkpoint of the stages warm or caption. Defaults to the projector of the file")
    parser.add_argument("--language", required=True, help="GGUF file of the language model it was trained for")
    parser.add_argument("--type", default="f16", choices=["f16", *TYPES])
    parser.add_argument("--trained-only", action="store_true", help="no model, but what train.py --from goes on with")
    parser.add_argument("out")
    args = parser.parse_args()
    encoder, projector = read(args.mmproj)
    if args.projector:
        projector = projector_of(args.projector)
    export(encoder, projector, args.out, args.language, args.type, args.trained_only)


if __name__ == "__main__":
    main()
