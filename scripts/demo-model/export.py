"""Writes the three GGUF files that llama.cpp and mtmd load, and manifest.json with their SHA-256."""

import argparse
import hashlib
import json
from pathlib import Path

import gguf
import numpy as np
import torch

from checkpoints import read
from tokenizer import BOS, EOS, MERGES, PAD, SPECIAL, TOKENS
from tokenizer import check as check_tokenizer

DECODER_NORMS = ("attn_norm", "ffn_norm")
DECODER_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
VISION_PARTS = ("attn_q", "attn_k", "attn_v", "attn_out", "ln1", "ln2", "ffn_up", "ffn_down")


def add(writer, name, tensor, keep_f32=False):
    """Matrices in f16, vectors (norms, biases) and what llama.cpp wants exact in f32."""
    array = tensor.detach().float().numpy()
    writer.add_tensor(name, array if array.ndim == 1 or keep_f32 else array.astype(np.float16))


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def export_decoder(path, weights, config, name, description):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_description(description)
    writer.add_license("mit")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(config["context"])
    writer.add_embedding_length(config["width"])
    writer.add_block_count(config["layers"])
    writer.add_feed_forward_length(config["hidden"])
    writer.add_head_count(config["heads"])
    writer.add_head_count_kv(config["heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(config["width"] // config["heads"])
    writer.add_rope_freq_base(config["theta"])
    writer.add_vocab_size(config["vocabulary"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(TOKENS)
    kinds = [gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * (len(TOKENS) - len(SPECIAL))
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_pad_token_id(PAD)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    # The output matrix is the embedding matrix (tied): llama.cpp reuses token_embd when output.weight is absent.
    add(writer, "token_embd.weight", weights["token_embd.weight"])
    add(writer, "output_norm.weight", weights["output_norm.weight"])
    for layer in range(config["layers"]):
        for part in DECODER_NORMS + DECODER_MATRICES:
            add(writer, f"blk.{layer}.{part}.weight", weights[f"blocks.{layer}.{part}.weight"])
    write(writer)


def export_projector(path, weights, vision, width):
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_name("xpatch demo mmproj")
    writer.add_description("CLIP-style vision encoder and MLP projector of the xpatch demo model")
    writer.add_license("mit")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", True)  # the tanh GELU; quick GELU without it
    numbers = {
        "image_size": vision["image"],
        "patch_size": vision["patch"],
        "embedding_length": vision["width"],
        "feed_forward_length": vision["hidden"],
        "block_count": vision["layers"],
        "projection_dim": width,
        "attention.head_count": vision["heads"],
    }
    for key, value in numbers.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    # Without this key the `mlp` graph stops one block early, as LLaVA does.
    writer.add_array("clip.vision.feature_layer", [vision["layers"]])
    add(writer, "v.patch_embd.weight", weights["vision.patch.weight"])
    add(writer, "v.position_embd.weight", weights["vision.position"], keep_f32=True)
    for kind in ("weight", "bias"):
        add(writer, f"v.pre_ln.{kind}", weights[f"vision.pre_ln.{kind}"])
        add(writer, f"v.post_ln.{kind}", weights[f"vision.post_ln.{kind}"])
        add(writer, f"mm.0.{kind}", weights[f"mm0.{kind}"])
        add(writer, f"mm.2.{kind}", weights[f"mm2.{kind}"])
        for layer in range(vision["layers"]):
            for part in VISION_PARTS:
                add(writer, f"v.blk.{layer}.{part}.{kind}", weights[f"vision.blocks.{layer}.{part}.{kind}"])
    write(writer)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, nargs="+", help="checkpoints, averaged")
    parser.add_argument("--language", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    check_tokenizer()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    model, language = read(args.model), torch.load(args.language)
    weights = model["weights"]
    decoder = {name.removeprefix("decoder."): w for name, w in weights.items() if name.startswith("decoder.")}
    files = ["xpatch-demo-f16.gguf", "mmproj-xpatch-demo-f16.gguf", "xpatch-demo-base-f16.gguf"]
    export_decoder(out / files[0], decoder, model["decoder"], "xpatch demo", "Decoder of the xpatch demo vision-language model")
    export_projector(out / files[1], weights, model["vision"], model["decoder"]["width"])
    export_decoder(out / files[2], language["weights"], language["config"], "xpatch demo base", "Base language model the xpatch demo model grew from")
    manifest = {}
    for file in files:
        content = (out / file).read_bytes()
        manifest[file] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        print(file, manifest[file])
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    main()
