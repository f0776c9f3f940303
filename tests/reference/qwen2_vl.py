"""Qwen2-VL and Qwen2.5-VL: pictures of any aspect, two-dimensional RoPE in the encoder, M-RoPE in the decoder.

Qwen2.5-VL's encoder looks at windows of 112 pixels in all but some blocks: its pictures are larger than one.
"""

import json

import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from pictures import GRID, WINDOWS, load_pixels
from tiny import randomise, save_tokenizer
from vision import index_entry, record_vision

# 16 pixels a merged patch: a 64 x 48 picture is a grid of 4 x 3 rows. Real models have patches of 14 pixels.
PATCH_SIZE = 8
MERGE = 2
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
SPECIALS = ['<|endoftext|>', '<|im_end|>', '<|vision_start|>', '<|vision_end|>', '<|image_pad|>', '<|video_pad|>']
START, END, IMAGE, VIDEO = range(2, 6)
FAMILIES = ['qwen2-vl', 'qwen2.5-vl']
# llama.cpp v0.4.0 does not read the RMS epsilon of this architecture (src/models/qwen2vl.cpp) and takes 0: the norm of a
# row of zeros is then 0 / 0.
WITHOUT = ['zero']


TEXT = dict(
    vocab_size=288,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    rms_norm_eps=1e-6,
    bos_token_id=0,
    eos_token_id=1,
)
COMMON = dict(
    image_token_id=IMAGE,
    video_token_id=VIDEO,
    vision_start_token_id=START,
    vision_end_token_id=END,
    tie_word_embeddings=False,
    attn_implementation='eager',
)
ENCODER = dict(num_heads=2, patch_size=PATCH_SIZE, spatial_merge_size=MERGE, temporal_patch_size=2)


def rope(*section):
    """Pairs of dimensions of a head that turn with time, height and width."""
    return dict(rope_type='default', rope_theta=1e4, mrope_section=list(section))


def qwen2_vl():
    config = Qwen2VLConfig(
        text_config=dict(**TEXT, hidden_size=64, intermediate_size=96, rope_parameters=rope(2, 3, 3)),
        # the converter maps merger.mlp.2 only when there are three blocks
        vision_config=dict(**ENCODER, depth=3, embed_dim=32, hidden_size=64, mlp_ratio=2),
        **COMMON,
    )
    return randomise(Qwen2VLForConditionalGeneration(config), seed=31)


def qwen2_5_vl():
    config = Qwen2_5_VLConfig(
        text_config=dict(**TEXT, hidden_size=48, intermediate_size=64, rope_parameters=rope(2, 2, 2)),
        vision_config=dict(
            **ENCODER,
            depth=4,
            hidden_size=32,
            intermediate_size=48,
            out_hidden_size=48,
            fullatt_block_indexes=[1, 3],
            window_size=112,  # mtmd knows no other
        ),
        **COMMON,
    )
    return randomise(Qwen2_5_VLForConditionalGeneration(config), seed=32)


def patches(file):
    return patches_of(load_pixels(file, MEAN, STD))


def patches_of(pixels):
    """[patches, 3 * 2 * patch * patch] and the grid (t, h, w): merged patches stay together, a picture is two equal frames."""
    height, width = (side // PATCH_SIZE for side in pixels.shape[1:])
    grid = pixels.reshape(3, height // MERGE, MERGE, PATCH_SIZE, width // MERGE, MERGE, PATCH_SIZE)
    flat = grid.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(5).expand(-1, -1, -1, -1, -1, 2, -1, -1)
    return flat.reshape(height * width, -1), [1, height, width]


def make(name, checkpoint, out, convert):
    newer = name == 'qwen2.5-vl'
    model = qwen2_5_vl() if newer else qwen2_vl()
    model.save_pretrained(checkpoint)
    tokenizer = save_tokenizer(checkpoint, 288, SPECIALS, add_bos=False)
    (checkpoint / 'preprocessor_config.json').write_text(json.dumps({'image_mean': MEAN, 'image_std': STD}))
    convert.convert_text(checkpoint, out / f'{name}.gguf', f'tiny-{name}', 'gpt-2', {})
    convert.convert_mmproj(checkpoint, out / f'{name}.mmproj.gguf', f'tiny-{name}-mmproj')

    def pixel_inputs(files):
        pieces, grids = zip(*(patches(file) for file in files))
        return {'pixel_values': torch.cat(pieces), 'image_grid_thw': torch.tensor(grids)}

    def embed(file):
        return model.get_image_features(**pixel_inputs([file])).pooler_output[0]

    def inputs(ids, files):
        return {'input_ids': ids, 'mm_token_type_ids': (ids == IMAGE).int(), **pixel_inputs(files)}

    tensors, prompts = record_vision(
        model, tokenizer, WINDOWS if newer else GRID, embed, inputs, IMAGE, around=([START], [END]), without=WITHOUT
    )
    return tensors, index_entry(name, model, 'qwen2vl', prompts)
