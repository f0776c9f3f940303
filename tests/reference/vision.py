"""What the vision-language families share: prompts with pictures, recorded."""

import torch

from record import record_prompt

PROMPTS = {
    'one-picture': ['Q:', '{0}', '\nA:'],
    'two-pictures': ['Q:', '{0}', '\nA:Sweden\n\nQ:', '{1}', '\nA:'],
}


def record_vision(model, tokenizer, pictures, embed, inputs, image_token, bos=(), around=((), ()), without=()):
    """Returns reference tensors and the prompts' part of the index.

    pictures: two file names. embed(file) -> [rows, n_embd], what the projector gives. inputs(ids, files) -> what the
    model's forward takes. around: tokens that llama.cpp's mtmd puts before and after each picture. without: operations
    that llama.cpp cannot do on this family.
    """
    with torch.no_grad():
        embeddings = {file: embed(file) for file in pictures}
    tensors = {f'{file}.embeddings': value for file, value in embeddings.items()}
    layers = model.get_submodule('model.language_model.layers')
    prompts = []
    for name, template in PROMPTS.items():
        parts, ids, images = [], list(bos), []
        for piece in template:
            if not piece.startswith('{'):
                parts.append(piece)
                ids += tokenizer.encode(piece, add_special_tokens=False)
                continue
            file = pictures[int(piece[1])]
            rows = len(embeddings[file])
            parts.append({'image': file})
            ids += around[0]
            images.append({'file': file, 'at': len(ids), 'rows': rows, 'embeddings': f'{file}.embeddings'})
            ids += [image_token] * rows + list(around[1])
        last_picture = images[-1]
        middles = [last_picture['at'] - 1, last_picture['at'] + last_picture['rows'] // 2]
        files = [image['file'] for image in images]
        recorded = record_prompt(
            model, layers, inputs(torch.tensor([ids]), files), name, middles, tensors, seed=300, without=without
        )
        tokens = [-1 if i == image_token else i for i in ids]
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
