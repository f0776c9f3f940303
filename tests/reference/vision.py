"""What the vision-language families share: prompts with pictures, recorded."""

from typing import NamedTuple

import torch

from record import record_prompt

PROMPTS = {
    'one-picture': ['Q:', '{0}', '\nA:'],
    'two-pictures': ['Q:', '{0}', '\nA:Sweden\n\nQ:', '{1}', '\nA:'],
}


class Rows(NamedTuple):
    """Rows that mtmd gives as embeddings: one piece of a picture, or a whole one."""

    key: str
    ids: list  # what transformers takes in their place
    embeddings: torch.Tensor  # [rows, n_embd]


def record_vision(
    model, tokenizer, pictures, embed, inputs, image_token, bos=(), around=((), ()), without=(), expand=None
):
    """Returns reference tensors and the prompts' part of the index.

    pictures: two file names. embed(file) -> [rows, n_embd], what the projector gives. inputs(ids, files) -> what the
    model's forward takes. around: tokens that llama.cpp's mtmd puts before and after each picture. without: operations
    that llama.cpp cannot do on this family. expand(file) -> lists of token ids and Rows, in place of embed and around,
    for pictures that become several pieces.
    """

    def whole(file):
        embeddings = embed(file)
        rows = Rows(f'{file}.embeddings', [image_token] * len(embeddings), embeddings)
        return [list(around[0]), rows, list(around[1])]

    with torch.no_grad():
        expanded = {file: (expand or whole)(file) for file in pictures}
    tensors = {}
    layers = model.get_submodule('model.language_model.layers' if hasattr(model.model, 'language_model') else 'model.text_model.layers')
    prompts = []
    for name, template in PROMPTS.items():
        parts, ids, tokens, images, files = [], list(bos), list(bos), [], []
        for piece in template:
            if not piece.startswith('{'):
                parts.append(piece)
                text = tokenizer.encode(piece, add_special_tokens=False)
                ids += text
                tokens += text
                continue
            file = pictures[int(piece[1])]
            files.append(file)
            parts.append({'image': file})
            for part in expanded[file]:
                if isinstance(part, Rows):
                    tensors[part.key] = part.embeddings
                    images.append({'file': file, 'at': len(ids), 'rows': len(part.ids), 'embeddings': part.key})
                    ids += part.ids
                    tokens += [-1] * len(part.ids)
                else:
                    ids += part
                    tokens += part
        last = images[-1]
        middles = [last['at'] - 1, last['at'] + last['rows'] // 2]
        recorded = record_prompt(
            model, layers, inputs(torch.tensor([ids]), files), name, middles, tensors, seed=300, without=without
        )
        prompts.append({'name': name, 'parts': parts, 'tokens': tokens, 'images': images, **recorded})
    return tensors, prompts


def index_entry(name, model, architecture, prompts):
    text = model.config.get_text_config()
    return {
        'mmproj': f'{name}.mmproj.gguf',
        'kind': 'vision',
        'architecture': architecture,
        'nEmbd': text.hidden_size,
        'nLayers': text.num_hidden_layers,
        'nVocab': text.vocab_size,
        'tokenizer': True,
        'texts': [],
        'prompts': prompts,
    }
