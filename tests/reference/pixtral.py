"""Pixtral: a Mistral decoder; pictures of any size, two-dimensional RoPE, a break after each line of patches but the last."""

import json

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, MistralConfig, PixtralVisionConfig

from pictures import GRID, load_pixels
from tiny import randomise, save_tokenizer
from vision import Rows, index_entry, record_vision

PATCH_SIZE = 16
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
SPECIALS = ['<s>', '</s>', '[IMG]', '[IMG_BREAK]', '[IMG_END]']
IMAGE, BREAK, END = range(2, 5)
FAMILIES = ['pixtral']


def build():
    vision = PixtralVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=128,
        patch_size=PATCH_SIZE,
        hidden_act='silu',
        rope_parameters=dict(rope_type='default', rope_theta=10000.0),
    )
    text = MistralConfig(
        vocab_size=288,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        sliding_window=None,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=IMAGE,
        projector_hidden_act='gelu',
        vision_feature_select_strategy='full',
        vision_feature_layer=-1,
        tie_word_embeddings=False,
        attn_implementation='eager',
    )
    return randomise(LlavaForConditionalGeneration(config), seed=51)


def make(name, checkpoint, out, convert):
    model = build()
    model.save_pretrained(checkpoint)
    tokenizer = save_tokenizer(checkpoint, 288, SPECIALS, add_bos=True)
    (checkpoint / 'preprocessor_config.json').write_text(json.dumps({'image_mean': MEAN, 'image_std': STD}))
    convert.convert_text(checkpoint, out / f'{name}.gguf', f'tiny-{name}', 'gpt-2', {})
    # MmprojModel.filter_tensors of v0.4.0 drops the embeddings that LlavaVisionModel.modify_tensors takes the break from.
    convert.convert_mmproj(checkpoint, out / f'{name}.mmproj.gguf', f'tiny-{name}-mmproj', keep='embed_tokens.weight')
    pixels = {file: load_pixels(file, MEAN, STD) for file in GRID}

    def expand(file):
        height, width = pixels[file].shape[1:]
        features = model.get_image_features(
            pixel_values=pixels[file][None], image_sizes=torch.tensor([[height, width]])
        ).pooler_output[0]
        columns = width // PATCH_SIZE
        broken = model.get_input_embeddings().weight[BREAK][None]
        ids, embeddings = [], []
        for line in features.split(columns):
            ids += [IMAGE] * columns + [BREAK]
            embeddings += [line, broken]
        # The last line ends with the end of the picture instead.
        return [Rows(f'{file}.embeddings', ids[:-1], torch.cat(embeddings[:-1])), [END]]

    def inputs(ids, files):
        sizes = torch.tensor([pixels[file].shape[1:] for file in files])
        height, width = sizes.max(dim=0).values.tolist()
        padded = torch.zeros(len(files), 3, height, width)
        for i, file in enumerate(files):
            padded[i, :, : sizes[i, 0], : sizes[i, 1]] = pixels[file]
        return {'input_ids': ids, 'pixel_values': padded, 'image_sizes': sizes}

    tensors, prompts = record_vision(model, tokenizer, GRID, None, inputs, IMAGE, bos=[0], expand=expand)
    return tensors, index_entry(name, model, 'llama', prompts)
