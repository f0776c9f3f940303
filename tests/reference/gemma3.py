"""Gemma 3 with pictures: rows of a picture see each other in both directions, five of six layers see a window only."""

import json

import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from pictures import SQUARE, load_pixels
from tiny import randomise, save_tokenizer
from vision import index_entry, record_vision

ROWS = 16
MEAN = STD = [0.5, 0.5, 0.5]
SPECIALS = ['<bos>', '<eos>', '<pad>', '<start_of_image>', '<end_of_image>', '<image_soft_token>']
START, END, IMAGE = range(3, 6)
FAMILIES = ['gemma3']


def build():
    config = Gemma3Config(
        text_config=dict(
            vocab_size=288,
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=6,  # llama.cpp takes every sixth layer for a full one
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            query_pre_attn_scalar=16,
            max_position_embeddings=512,
            # Shorter than a prompt, longer than a picture, as in the real models.
            sliding_window=20,
            rms_norm_eps=1e-6,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        ),
        vision_config=dict(
            model_type='siglip_vision_model',
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=3,
            image_size=32,
            patch_size=4,  # 8 x 8 patches, pooled to 4 x 4 rows
            vision_use_head=False,
        ),
        mm_tokens_per_image=ROWS,
        boi_token_index=START,
        eoi_token_index=END,
        image_token_index=IMAGE,
        attn_implementation='eager',
    )
    model = Gemma3ForConditionalGeneration(config)
    return randomise(model, seed=41, embedding_std=0.5, norm_offset=0.0, gains={'multi_modal_projector': 3.0})


def make(name, checkpoint, out, convert):
    model = build()
    model.save_pretrained(checkpoint)
    tokenizer = save_tokenizer(checkpoint, 288, SPECIALS, add_bos=True)
    processor = {'image_mean': MEAN, 'image_std': STD, 'image_seq_length': ROWS}
    (checkpoint / 'preprocessor_config.json').write_text(json.dumps(processor))
    convert.convert_text(checkpoint, out / f'{name}.gguf', f'tiny-{name}', 'gpt-2', {})
    # Published checkpoints, and so the converter, have one more level of names than transformers 5 saves.
    weights = load_file(checkpoint / 'model.safetensors')
    weights = {k.replace('vision_tower.', 'vision_tower.vision_model.'): v for k, v in weights.items()}
    save_file(weights, checkpoint / 'model.safetensors', {'format': 'pt'})
    convert.convert_mmproj(checkpoint, out / f'{name}.mmproj.gguf', f'tiny-{name}-mmproj')
    pixels = {file: load_pixels(file, MEAN, STD) for file in SQUARE}

    def embed(file):
        return model.get_image_features(pixel_values=pixels[file][None]).pooler_output[0]

    def inputs(ids, files):
        return {
            'input_ids': ids,
            'token_type_ids': (ids == IMAGE).long(),
            'pixel_values': torch.stack([pixels[file] for file in files]),
        }

    tensors, prompts = record_vision(
        model, tokenizer, SQUARE, embed, inputs, IMAGE, bos=[0], around=([START], [END])
    )
    return tensors, index_entry(name, model, 'gemma3', prompts)
