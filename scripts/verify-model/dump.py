#!/usr/bin/env python3
"""Dumps what transformers computes for some prompts, for `xpatch verify-model` to compare with.

    pip install torch transformers safetensors numpy pillow
    python dump.py --model Qwen/Qwen2-VL-2B-Instruct --prompt "Q:France\nA:" \
        --prompt "Q:<image>\nA:" --image flag.png -o reference.safetensors

The output of every decoder block at every position (before the final norm), the logits of the last position, and the rows of
every picture as they enter the first block, in float32. Weights are read in float32 too, so a model needs 4 bytes a parameter.
"""

import argparse
import json
import os
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

# What a chat template puts around a picture, where the processor does not: llama.cpp adds the same.
AROUND = {
    'qwen2_vl': ('<|vision_start|>', '<|vision_end|>'),
    'qwen2_5_vl': ('<|vision_start|>', '<|vision_end|>'),
    'qwen3_vl': ('<|vision_start|>', '<|vision_end|>'),
}


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', required=True, help='folder or Hugging Face name of the checkpoint')
    parser.add_argument('--gguf-file', help='a GGUF in that folder, whose weights are dequantised')
    parser.add_argument('--prompt', action='append', default=[], help=r'text, <image> where a picture goes; \n is a line break')
    parser.add_argument('--image', action='append', default=[], help='picture file, one for each <image>, in order')
    parser.add_argument('--tokens', action='append', default=[], help='token ids instead of a text, such as 1,2,3')
    parser.add_argument('-o', '--output', required=True)
    return parser.parse_args()


def load(args):
    options = {'dtype': torch.float32, 'attn_implementation': 'eager'}
    if args.gguf_file:
        return transformers.AutoModelForCausalLM.from_pretrained(args.model, gguf_file=args.gguf_file, **options).eval()
    if args.image:
        return transformers.AutoModelForImageTextToText.from_pretrained(args.model, **options).eval()
    return transformers.AutoModelForCausalLM.from_pretrained(args.model, **options).eval()


def decoder_layers(model):
    decoder = model.get_decoder()
    for name in ('layers', 'h', 'blocks'):
        if hasattr(decoder, name):
            return getattr(decoder, name)
    raise SystemExit(f'where {type(decoder).__name__} keeps its blocks is not known to this script')


def run(model, inputs):
    """Block outputs [layers, positions, n_embd], logits of the last position, and the input of the first block."""
    layers = decoder_layers(model)
    states, entering = [None] * len(layers), []

    def before(_module, args, kwargs):
        entering.append((args[0] if args else kwargs['hidden_states'])[0].clone())

    def after(i):
        def hook(_module, _inputs, output):
            states[i] = (output[0] if isinstance(output, tuple) else output)[0].clone()

        return hook

    handles = [layer.register_forward_hook(after(i)) for i, layer in enumerate(layers)]
    handles.append(layers[0].register_forward_pre_hook(before, with_kwargs=True))
    try:
        with torch.no_grad():
            logits = model(**inputs, use_cache=False).logits[0, -1]
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(states), logits, entering[0]


def runs_of(flags):
    """The stretches [from, to) of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return edges.reshape(-1, 2).tolist()


def picture_inputs(model, processor, text, images):
    kind = model.config.model_type
    mark = getattr(processor, 'boi_token', None) or processor.image_token
    before, after = AROUND.get(kind, ('', ''))
    text = text.replace('<image>', before + mark + after)
    inputs = processor(text=text, images=images, return_tensors='pt')
    # A row that mtmd gives as an embedding: patches, and Pixtral's breaks between their lines.
    ids = {getattr(model.config, name, None) for name in ('image_token_id', 'image_token_index')}
    ids |= {getattr(processor, 'image_token_id', None), getattr(processor, 'image_break_token_id', None)}
    rows = torch.isin(inputs['input_ids'][0], torch.tensor([i for i in ids if i is not None]))
    return inputs, rows.numpy()


def main():
    args = parse()
    if not args.prompt and not args.tokens:
        raise SystemExit('give --prompt or --tokens')
    source = {'gguf_file': args.gguf_file} if args.gguf_file else {}
    model = load(args)
    processor = transformers.AutoProcessor.from_pretrained(args.model) if args.image else None
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model, **source) if args.prompt else None
    tensors, prompts, images = {}, [], list(args.image)
    for text in [prompt.replace('\\n', '\n') for prompt in args.prompt] + [None] * len(args.tokens):
        index = len(prompts)
        parts, pictures, rows = [], [], None
        if text is None:
            ids = [int(token) for token in args.tokens[index - len(args.prompt)].split(',')]
            inputs, parts = {'input_ids': torch.tensor([ids])}, [{'tokens': ids}]
        else:
            for i, piece in enumerate(text.split('<image>')):
                if i > 0:
                    if not images:
                        raise SystemExit('there are more <image> than --image')
                    from PIL import Image

                    pictures.append(Image.open(images.pop(0)).convert('RGB'))
                    key = f'{index}.picture.{i - 1}'
                    tensors[key] = torch.from_numpy(np.asarray(pictures[-1]).copy())
                    parts.append({'picture': key})
                if piece:
                    parts.append({'text': piece})
            if pictures:
                inputs, rows = picture_inputs(model, processor, text, pictures)
            else:
                inputs = tokenizer(text, return_tensors='pt')
                inputs.pop('token_type_ids', None)
        tokens = inputs['input_ids'][0].to(torch.int32)
        states, logits, entering = run(model, inputs)
        embeddings = []
        if rows is not None:
            for start, end in runs_of(rows):
                embeddings.append(f'{index}.embeddings.{len(embeddings)}')
                tensors[embeddings[-1]] = entering[start:end]
                tokens[start:end] = -1
        tensors |= {f'{index}.tokens': tokens, f'{index}.states': states, f'{index}.logits': logits}
        prompts.append({'parts': parts, 'embeddings': embeddings})
        print(f'prompt {index}: {len(tokens)} positions, {len(states)} layers of {states.shape[-1]}', file=sys.stderr)
    if images:
        raise SystemExit('there are more --image than <image>')
    metadata = {
        'xpatch.reference': '1',
        'model': os.path.basename(args.model.rstrip('/')),
        'transformers': transformers.__version__,
        'torch': torch.__version__,
        'prompts': json.dumps(prompts),
    }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, args.output, metadata)


if __name__ == '__main__':
    main()
