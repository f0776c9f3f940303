"""SmolVLM (Idefics3): pictures cut into tiles, each between tokens that name its place, and the whole one reduced."""

import json

import torch
from PIL import Image
from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

from pictures import TILES, load_tiles
from tiny import randomise, save_tokenizer
from vision import Rows, index_entry, record_vision

SIDE = 32
LONGEST = 64  # every picture is scaled to this length first; those here have it
MEAN = STD = [0.5, 0.5, 0.5]
PLACES = [f'<row_{row}_col_{column}>' for row in (1, 2) for column in (1, 2)]
SPECIALS = ['<s>', '</s>', '<image>', '<fake_token_around_image>', '<global-img>', *PLACES]
# A token of the published vocabulary, which mtmd looks up.
EMPTY_LINES = ['.\n\n'] * 50
IMAGE = SPECIALS.index('<image>')
FAMILIES = ['smolvlm']


def build():
    config = SmolVLMConfig(
        text_config=dict(
            model_type='llama',
            architectures=['VLlama3ForCausalLM'],  # as the published ones call it
            vocab_size=288,
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=512,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        ),
        vision_config=dict(
            model_type='smolvlm_vision',
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=8,  # 4 x 4 patches, shuffled to 2 x 2 rows
        ),
        image_token_id=IMAGE,
        scale_factor=2,
        pad_token_id=1,
        tie_word_embeddings=False,
        attn_implementation='eager',
    )
    return randomise(SmolVLMForConditionalGeneration(config), seed=61, gains={'proj': 2.0})


def make(name, checkpoint, out, convert):
    model = build()
    model.save_pretrained(checkpoint)
    tokenizer = save_tokenizer(checkpoint, 288, SPECIALS, add_bos=True, more_text=EMPTY_LINES)
    processor = {'image_mean': MEAN, 'image_std': STD, 'size': {'longest_edge': LONGEST}}
    (checkpoint / 'preprocessor_config.json').write_text(json.dumps(processor))
    convert.convert_text(checkpoint, out / f'{name}.gguf', f'tiny-{name}', 'gpt-2', {})
    convert.convert_mmproj(checkpoint, out / f'{name}.mmproj.gguf', f'tiny-{name}-mmproj')
    pixels = {file: load_tiles(file, SIDE, Image.Resampling.LANCZOS, MEAN, STD) for file in TILES}

    def expand(file):
        """As _prompt_split_image of transformers: a line break after each line of tiles, an empty line before the whole."""
        features = model.get_image_features(pixel_values=pixels[file][None]).pooler_output[0]
        *tiles, whole = features.split(len(features) // len(pixels[file]))
        columns = LONGEST // SIDE
        pieces, text = [], ''
        for i, tile in enumerate(tiles):
            text += f'<fake_token_around_image><row_{i // columns + 1}_col_{i % columns + 1}>'
            pieces += [encode(text), rows(f'{file}.{i}', tile)]
            text = '\n' if i % columns == columns - 1 else ''
        pieces += [encode(f'{text}\n<fake_token_around_image><global-img>'), rows(f'{file}.whole', whole)]
        return [*pieces, encode('<fake_token_around_image>')]

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False)

    def rows(key, embeddings):
        return Rows(f'{key}.embeddings', [IMAGE] * len(embeddings), embeddings)

    def inputs(ids, files):
        return {'input_ids': ids, 'pixel_values': torch.cat([pixels[file] for file in files])[None]}

    tensors, prompts = record_vision(model, tokenizer, TILES, None, inputs, IMAGE, bos=[0], expand=expand)
    return tensors, index_entry(name, model, 'llama', prompts)
