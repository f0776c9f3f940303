"""Qwen3-VL: a deepstack. Its encoder gives further rows for each picture, which are added to the outputs of the first blocks."""

import json

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from pictures import GRID, load_pixels
from qwen2_vl import IMAGE, END, MERGE, PATCH_SIZE, SPECIALS, START, TEXT, VIDEO, patches_of
from tiny import randomise, save_tokenizer
from vision import index_entry, record_vision

MEAN = STD = [0.5, 0.5, 0.5]
FAMILIES = ['qwen3-vl']


def qwen3_vl():
    config = Qwen3VLConfig(
        text_config=dict(
            **{**TEXT, 'num_hidden_layers': 4},
            hidden_size=64,
            intermediate_size=96,
            head_dim=16,
            rope_parameters=dict(rope_type='default', rope_theta=1e4, mrope_section=[2, 3, 3], mrope_interleaved=True),
        ),
        vision_config=dict(
            num_heads=2,
            patch_size=PATCH_SIZE,
            spatial_merge_size=MERGE,
            temporal_patch_size=2,
            depth=3,
            hidden_size=32,
            intermediate_size=64,
            out_hidden_size=64,
            num_position_embeddings=64,
            deepstack_visual_indexes=[0, 2],
        ),
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
        tie_word_embeddings=False,
        attn_implementation='eager',
    )
    # Of four seeds the one that magnifies the encoder's 16-bit rounding least: by its own arithmetic mtmd is 1e-6 (NMSE) off.
    return randomise(Qwen3VLForConditionalGeneration(config), seed=36)


def fold_deepstack(decoder):
    """Lets every block add its rows of the deepstack itself, so that its output is what the next block reads."""
    extra = {}
    original = decoder.forward

    def forward(*args, visual_pos_masks=None, deepstack_visual_embeds=None, **kwargs):
        extra.update(mask=visual_pos_masks, rows=deepstack_visual_embeds or [])
        return original(*args, **kwargs)

    def block(index, run):
        def forward(*args, **kwargs):
            hidden = run(*args, **kwargs)
            if index < len(extra['rows']):
                hidden = hidden.clone()
                hidden[extra['mask']] += extra['rows'][index]
            return hidden

        return forward

    decoder.forward = forward
    for index, layer in enumerate(decoder.layers):
        layer.forward = block(index, layer.forward)


def make(name, checkpoint, out, convert):
    model = qwen3_vl()
    model.save_pretrained(checkpoint)
    tokenizer = save_tokenizer(checkpoint, TEXT['vocab_size'], SPECIALS, add_bos=False)
    (checkpoint / 'preprocessor_config.json').write_text(json.dumps({'image_mean': MEAN, 'image_std': STD}))
    convert.convert_text(checkpoint, out / f'{name}.gguf', f'tiny-{name}', 'gpt-2', {})
    convert.convert_mmproj(checkpoint, out / f'{name}.mmproj.gguf', f'tiny-{name}-mmproj')

    def pixel_inputs(files):
        pieces, grids = zip(*(patches_of(load_pixels(file, MEAN, STD)) for file in files))
        return {'pixel_values': torch.cat(pieces), 'image_grid_thw': torch.tensor(grids)}

    def embed(file):
        # mtmd puts the rows of the deepstack behind those of the picture itself, number by number.
        features = model.get_image_features(**pixel_inputs([file]))
        return torch.cat([features.pooler_output[0], *(torch.cat(rows) for rows in features.deepstack_features)], dim=-1)

    def inputs(ids, files):
        return {'input_ids': ids, 'mm_token_type_ids': (ids == IMAGE).int(), **pixel_inputs(files)}

    ids = torch.tensor([[5, START, *[IMAGE] * len(embed(GRID[0])), END, 7]])
    with torch.no_grad():
        before = model(**inputs(ids, GRID[:1])).logits
        fold_deepstack(model.model.language_model)
        torch.testing.assert_close(model(**inputs(ids, GRID[:1])).logits, before, rtol=0, atol=0)

    tensors, prompts = record_vision(model, tokenizer, GRID, embed, inputs, IMAGE, around=([START], [END]))
    return tensors, index_entry(name, model, 'qwen3vl', prompts)
