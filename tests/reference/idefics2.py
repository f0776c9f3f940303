"""Idefics2: a SigLIP for pictures of any size, a perceiver resampler, a Mistral.

The checkpoint is converted by `xpatch models convert`, so dist/ must be built.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers
from transformers import Idefics2Config, Idefics2ForConditionalGeneration

from pictures import FOLDER
from record import record_prompt
from tiny import CORPUS, randomise

FAMILIES = ['idefics2']
ROOT = Path(__file__).resolve().parent.parent.parent
FAKE, IMAGE, END = '<fake_token_around_image>', '<image>', '<end_of_utterance>'
ROWS = 6
SHORTEST, LONGEST = 56, 72
# No picture has a size that the preprocessing passes on: 64 x 48 is stretched to 64 x 56, 48 x 80 reduced to 43 x 72 and
# stretched to 56 x 72, 32 x 32 enlarged. No edge is a whole number of patches of 10.
PROMPTS = {
    'one-picture': ['Q:', 'grid-a.png', '\nA:'],
    'two-pictures': ['Q:', 'grid-b.png', '\nA:Sweden\n\nQ:', 'grid-a.png', '\nA:'],
    'side-by-side': ['square-a.png', 'grid-b.png', 'the country:'],
}
TEXTS = ['Q:Sweden\nA:', 'The capital city of the country:', f'{FAKE}a {END} b']


def build_tokenizer():
    """BPE with byte fallback, as transformers converts Mistral's SentencePiece file."""
    tokenizer = Tokenizer(models.BPE(unk_token='<unk>', byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
    control = ['<unk>', '<s>', '</s>']
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=control + [f'<0x{byte:02X}>' for byte in range(256)], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    # The trainer's own specials would be found in texts: bytes are pieces only.
    model = json.loads(tokenizer.to_str())['model']
    merges = [tuple(merge) for merge in model['merges']]
    plain = Tokenizer(models.BPE(model['vocab'], merges, unk_token='<unk>', byte_fallback=True, fuse_unk=True))
    plain.normalizer = tokenizer.normalizer
    plain.decoder = decoders.Sequence(
        [decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(' ', 1, 0)]
    )
    plain.post_processor = processors.TemplateProcessing(single='<s> $A', special_tokens=[('<s>', 1)])
    plain.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (*control, FAKE, IMAGE, END)])
    return plain


def build(tokenizer):
    text = dict(
        model_type='mistral',
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    config = Idefics2Config(
        # 8 x 8 positions; heads of 16 and of 24, which need not be powers of two in the real one either (72 and 96).
        vision_config=dict(
            hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=3, image_size=80, patch_size=10
        ),
        perceiver_config=dict(
            hidden_size=64,
            resampler_n_latents=ROWS,
            resampler_depth=2,
            resampler_n_heads=4,
            resampler_head_dim=24,
            num_key_value_heads=2,
            rms_norm_eps=1e-5,
        ),
        text_config=text,
        image_token_id=tokenizer.token_to_id(IMAGE),
        tie_word_embeddings=False,
        attn_implementation='eager',
    )
    model = randomise(Idefics2ForConditionalGeneration(config), seed=51, gains={'fc1': 1.5, 'fc2': 1.5})
    latents = model.model.connector.perceiver_resampler.latents
    with torch.no_grad():
        latents.copy_(torch.randn(latents.shape, generator=torch.Generator().manual_seed(52)))
    return model


def save(checkpoint, model, tokenizer):
    model.save_pretrained(checkpoint)
    tokenizer.save(str(checkpoint / 'tokenizer.json'))
    names = {'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '<unk>', 'pad_token': '<unk>'}
    (checkpoint / 'tokenizer_config.json').write_text(
        json.dumps({'tokenizer_class': 'LlamaTokenizer', **names, 'add_bos_token': True, 'add_eos_token': False})
    )
    size = {'shortest_edge': SHORTEST, 'longest_edge': LONGEST}
    (checkpoint / 'preprocessor_config.json').write_text(
        json.dumps({'image_mean': [0.5] * 3, 'image_std': [0.5] * 3, 'size': size, 'do_image_splitting': False})
    )


def convert_checkpoint(checkpoint, out, name):
    cli = [str(ROOT / 'dist/cli/main.js'), 'models', 'convert', str(checkpoint), '-o', str(checkpoint / 'gguf'), '--type', 'f32']
    subprocess.run(['node', *cli, '--quiet'], check=True)
    for file in sorted((checkpoint / 'gguf').glob('*.gguf')):
        target = f'{name}.mmproj.gguf' if 'mmproj' in file.name else f'{name}.gguf'
        (out / target).write_bytes(file.read_bytes())


def load_pixels(file):
    """[3, height, width], scaled as transformers 4.44 with Pillow 10 did: rows first (newer ones choose by the sizes)."""
    image = Image.open(FOLDER / file).convert('RGB')
    width, height = image.size
    aspect = width / height
    if width >= height and width > LONGEST:
        width, height = LONGEST, int(LONGEST / aspect)
    elif height > width and height > LONGEST:
        width, height = int(LONGEST * aspect), LONGEST
    width, height = max(width, SHORTEST), max(height, SHORTEST)
    image = image.resize((width, image.size[1]), Image.BILINEAR).resize((width, height), Image.BILINEAR)
    return (torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255 - 0.5) / 0.5


def batch(files):
    """All pictures of a prompt padded to one size, with the mask that tells them from the padding."""
    pixels = [load_pixels(file) for file in files]
    height, width = (max(p.shape[axis] for p in pixels) for axis in (1, 2))
    values = torch.zeros(1, len(pixels), 3, height, width)
    mask = torch.zeros(1, len(pixels), height, width, dtype=torch.bool)
    for i, p in enumerate(pixels):
        values[0, i, :, : p.shape[1], : p.shape[2]] = p
        mask[0, i, : p.shape[1], : p.shape[2]] = True
    return {'pixel_values': values, 'pixel_attention_mask': mask}


def make(name, checkpoint, out, _convert):
    tokenizer = build_tokenizer()
    model = build(tokenizer)
    save(checkpoint, model, tokenizer)
    convert_checkpoint(checkpoint, out, name)
    image_token = tokenizer.token_to_id(IMAGE)

    tensors, prompts = {}, []
    for prompt, template in PROMPTS.items():
        files = [piece for piece in template if piece.endswith('.png')]
        # As Idefics2Processor of transformers 4.44: one text, in which pictures side by side share a token.
        text = ''.join(f'{FAKE}{IMAGE * ROWS}{FAKE}' if piece in files else piece for piece in template)
        ids = tokenizer.encode(text.replace(FAKE + FAKE, FAKE)).ids
        starts = [i for i, id in enumerate(ids) if id == image_token and ids[i - 1] != image_token]
        listed = []
        for file, at in zip(files, starts, strict=True):
            with torch.no_grad():
                (features,) = model.model.get_image_features(**batch([file])).pooler_output
            tensors[f'{file}.embeddings'] = features.reshape(ROWS, -1)
            listed.append({'file': file, 'at': at, 'rows': ROWS, 'embeddings': f'{file}.embeddings'})
        inputs = {'input_ids': torch.tensor([ids]), **batch(files)}
        middles = [starts[-1] - 1, starts[-1] + ROWS // 2]
        recorded = record_prompt(model, model.model.text_model.layers, inputs, prompt, middles, tensors, seed=300)
        parts = [{'image': piece} if piece in files else piece for piece in template]
        tokens = [-1 if id == image_token else id for id in ids]
        prompts.append({'name': prompt, 'parts': parts, 'tokens': tokens, 'images': listed, **recorded})
    text_config = model.config.text_config
    return tensors, {
        'mmproj': f'{name}.mmproj.gguf',
        'kind': 'vision',
        'architecture': 'llama',
        'nEmbd': text_config.hidden_size,
        'nLayers': text_config.num_hidden_layers,
        'nVocab': text_config.vocab_size,
        'tokenizer': True,
        'texts': [{'text': text, 'tokens': tokenizer.encode(text).ids} for text in TEXTS],
        'prompts': prompts,
    }
