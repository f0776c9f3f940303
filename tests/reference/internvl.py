"""InternVL: a Qwen2 decoder; pictures cut into tiles, the whole one reduced behind them, a class token in the encoder."""

import json

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import InternVLConfig, InternVLForConditionalGeneration

from pictures import SQUARE, TILES, load_pixels, load_tiles
from tiny import randomise, save_tokenizer
from vision import Rows, index_entry, record_vision

SIDE = 32
MEAN = [0.485, 0.456, 0.406]
STD = [0.229, 0.224, 0.225]
SPECIALS = ['<|endoftext|>', '<|im_end|>', '<img>', '</img>', '<IMG_CONTEXT>']
START, END, IMAGE = range(2, 5)
FAMILIES = ['internvl']
# One tile, which is the whole picture, and two with a third one for the whole.
PICTURES = [SQUARE[0], TILES[0]]


def build():
    config = InternVLConfig(
        text_config=dict(
            model_type='qwen2',
            architectures=['Qwen2ForCausalLM'],
            vocab_size=288,
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            rms_norm_eps=1e-6,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=1,
        ),
        vision_config=dict(
            architectures=['InternVisionModel'],
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=4,  # the converter maps mlp1.3 only when there are four blocks
            num_attention_heads=2,
            image_size=[SIDE, SIDE],
            patch_size=[8, 8],
            attention_bias=True,
            hidden_act='gelu',
        ),
        image_token_id=IMAGE,
        image_seq_length=4,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
        attn_implementation='eager',
    )
    return randomise(InternVLForConditionalGeneration(config), seed=71, gains={'linear_1': 1.5})


def make(name, checkpoint, out, convert):
    model = build()
    model.save_pretrained(checkpoint)
    tokenizer = save_tokenizer(checkpoint, 288, SPECIALS, add_bos=False)
    (checkpoint / 'preprocessor_config.json').write_text(json.dumps({'image_mean': MEAN, 'image_std': STD}))
    convert.convert_text(checkpoint, out / f'{name}.gguf', f'tiny-{name}', 'gpt-2', {})
    # The converter knows these tensors under the names that transformers gave them from 4.52 to 4.57.
    weights = {f'model.{k}': v for k, v in load_file(checkpoint / 'model.safetensors').items()}
    save_file(weights, checkpoint / 'model.safetensors', {'format': 'pt'})
    convert.convert_mmproj(checkpoint, out / f'{name}.mmproj.gguf', f'tiny-{name}-mmproj')
    square, tiled = PICTURES
    pixels = {
        square: load_pixels(square, MEAN, STD)[None],
        tiled: load_tiles(tiled, SIDE, Image.Resampling.BICUBIC, MEAN, STD),
    }

    def expand(file):
        tiles = model.get_image_features(pixel_values=pixels[file]).pooler_output
        rows = [Rows(f'{file}.{i}.embeddings', [IMAGE] * len(tile), tile) for i, tile in enumerate(tiles)]
        return [[START], *rows, [END]]

    def inputs(ids, files):
        return {'input_ids': ids, 'pixel_values': torch.cat([pixels[file] for file in files])}

    tensors, prompts = record_vision(model, tokenizer, PICTURES, None, inputs, IMAGE, expand=expand)
    return tensors, index_entry(name, model, 'qwen2', prompts)
