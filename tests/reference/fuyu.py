"""Persimmon and Mantis-Fuyu: LayerNorm of queries and keys, pictures as linear patches with newline tokens.

Nothing of llama.cpp reads these checkpoints, so the GGUF files are written here, with the keys of src/gguf/own-keys.ts.
"""

import json

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import FuyuConfig, FuyuForCausalLM, PersimmonConfig, PersimmonForCausalLM
from transformers.models.fuyu.image_processing_pil_fuyu import FuyuImageProcessorPil

from pictures import FOLDER
from record import record_prompt
from tiny import CORPUS, randomise

FAMILIES = ['persimmon', 'mantis-fuyu']
PATCH = 30
SPEAKER, NEWLINE = '|SPEAKER|', '|NEWLINE|'
BEGIN, END = '|IMAGE|', '|ENDOFIMAGE|'
# Whole patches in the second only.
PICTURES = ['grid-a.png', 'patches.png', 'grid-b.png']
WORDS = ['Sweden', 'Stockholm', 'capital', 'country', 'the', 'of', 'image', 'France', 'Paris', 'small', 'horse', '▁image', '▁the', 'Q:', 'A:']
TEXTS = [
    'Q:Sweden\nA:',
    'The capital city of the country:',
    ' two  spaces, 3.14 and "åäö" 🙂\n\n',
    'a literal <0x41>, a </s> and |NEWLINE|',
    '▁under▁score   end ',
]


def build_tokenizer():
    """Unigram with byte fallback, as transformers converts a SentencePiece file of Llama's kind; like Fuyu's, it holds the
    names of its picture tokens as pieces."""
    letters = sorted(set(''.join(CORPUS)) - {' ', '\n'} | set(',.:"3147'))
    pieces = [('<unk>', 0.0), ('<s>', 0.0), ('</s>', 0.0)]
    pieces += [(f'<0x{byte:02X}>', 0.0) for byte in range(256)]
    pieces += [('▁', -2.0)]
    pieces += [(letter, -4.0 - 0.01 * i) for i, letter in enumerate(letters)]
    pieces += [(word, -5.0 - 0.1 * i) for i, word in enumerate(WORDS) if word not in letters]
    pieces += [(SPEAKER, 0.0), (NEWLINE, 0.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, 0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(' ', 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single='<s> $A', special_tokens=[('<s>', 1)])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ('<unk>', '<s>', '</s>')])
    return tokenizer, [score for _, score in pieces]


def save_tokenizer(checkpoint, tokenizer, add_bos):
    checkpoint.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(checkpoint / 'tokenizer.json'))
    config = {'tokenizer_class': 'LlamaTokenizer', 'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '<unk>'}
    (checkpoint / 'tokenizer_config.json').write_text(json.dumps({**config, 'add_bos_token': add_bos, 'add_eos_token': False}))


def text_settings(vocab_size):
    return dict(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        hidden_act='relu2',
        max_position_embeddings=512,
        layer_norm_eps=1e-5,
        qk_layernorm=True,
        rope_parameters=dict(rope_type='default', rope_theta=25000.0, partial_rotary_factor=0.5),
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )


def write_text_gguf(path, name, config, state, tokenizer, scores, add_bos):
    """state: the tensors by the names of PersimmonForCausalLM."""
    import gguf

    n_embd, heads, layers = config.hidden_size, config.num_attention_heads, config.num_hidden_layers
    size = n_embd // heads
    writer = gguf.GGUFWriter(path, 'nemotron')
    writer.add_name(name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_rope_dimension_count(size // 2)
    writer.add_rope_freq_base(config.rope_parameters['rope_theta'])
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(0)

    special = {id: token.special for id, token in tokenizer.get_added_tokens_decoder().items()}
    kinds = []
    for id in range(config.vocab_size):
        piece = tokenizer.id_to_token(id)
        byte = len(piece) == 6 and piece.startswith('<0x')
        kinds.append(2 if id == 0 else 3 if special.get(id) else 6 if byte else 1)
    writer.add_tokenizer_model('llama')
    writer.add_tokenizer_pre('default')
    writer.add_token_list([tokenizer.id_to_token(id) for id in range(config.vocab_size)])
    writer.add_token_scores(scores + [0.0] * (config.vocab_size - len(scores)))
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(add_bos)
    writer.add_add_space_prefix(True)
    writer.add_string('tokenizer.huggingface.json', tokenizer.to_str())
    writer.add_string('xpatch.tokenizer', 'huggingface')
    for part in 'qk':
        for kind in ('weight', 'bias'):
            values = [state[f'model.layers.{i}.self_attn.{part}_layernorm.{kind}'] for i in range(layers)]
            writer.add_array(f'xpatch.qk_norm.{part}_{kind}', torch.cat(values).tolist())
    writer.add_float32('xpatch.qk_norm.epsilon', config.layer_norm_eps)

    def add(target, tensor):
        writer.add_tensor(target, np.ascontiguousarray(tensor.float().numpy()))

    add('token_embd.weight', state['model.embed_tokens.weight'])
    add('output.weight', state['lm_head.weight'])
    for kind in ('weight', 'bias'):
        add(f'output_norm.{kind}', state[f'model.final_layernorm.{kind}'])
        for i in range(layers):
            source, target = f'model.layers.{i}', f'blk.{i}'
            fused = state[f'{source}.self_attn.query_key_value.{kind}']
            for j, part in enumerate('qkv'):
                add(f'{target}.attn_{part}.{kind}', fused.reshape(heads, 3, size, -1)[:, j].reshape(n_embd, -1).squeeze(-1))
            add(f'{target}.attn_output.{kind}', state[f'{source}.self_attn.dense.{kind}'])
            add(f'{target}.attn_norm.{kind}', state[f'{source}.input_layernorm.{kind}'])
            add(f'{target}.ffn_norm.{kind}', state[f'{source}.post_attention_layernorm.{kind}'])
            add(f'{target}.ffn_up.{kind}', state[f'{source}.mlp.dense_h_to_4h.{kind}'])
            add(f'{target}.ffn_down.{kind}', state[f'{source}.mlp.dense_4h_to_h.{kind}'])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_mmproj(path, name, state, ids):
    import gguf

    writer = gguf.GGUFWriter(path, 'clip')
    writer.add_name(name)
    writer.add_string('clip.projector_type', 'fuyu')
    writer.add_bool('clip.has_vision_encoder', True)
    writer.add_uint32('clip.vision.patch_size', PATCH)
    writer.add_uint32('clip.vision.projection_dim', state['model.embed_tokens.weight'].shape[1])
    writer.add_uint32('xpatch.fuyu.max_height', 1080)
    writer.add_uint32('xpatch.fuyu.max_width', 1920)
    writer.add_array('clip.vision.image_mean', [0.5] * 3)
    writer.add_array('clip.vision.image_std', [0.5] * 3)
    writer.add_uint32('xpatch.image.begin_token', ids[BEGIN])
    writer.add_uint32('xpatch.image.end_token', ids[END])
    writer.add_string('xpatch.prompt.format', 'mantis')
    writer.add_tensor('mm.patch_embd.weight', state['vision.weight'].numpy())
    writer.add_tensor('mm.patch_embd.bias', state['vision.bias'].numpy())
    writer.add_tensor('mm.newline', state['model.embed_tokens.weight'][ids[NEWLINE]].contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_persimmon(checkpoint, out):
    tokenizer, scores = build_tokenizer()
    config = PersimmonConfig(**text_settings(tokenizer.get_vocab_size()))
    model = randomise(PersimmonForCausalLM(config), seed=41)
    model.save_pretrained(checkpoint)
    save_tokenizer(checkpoint, tokenizer, add_bos=True)
    write_text_gguf(out / 'persimmon.gguf', 'tiny-persimmon', config, model.state_dict(), tokenizer, scores, add_bos=True)
    generator = torch.Generator().manual_seed(100)
    tensors, prompts = {}, []
    for prompt, length, middles in (('long', 24, [7, 17]), ('short', 5, [2])):
        tokens = torch.randint(3, config.vocab_size, (length,), generator=generator).tolist()
        recorded = record_prompt(
            model, model.model.layers, {'input_ids': torch.tensor([tokens])}, prompt, middles, tensors, seed=200 + length
        )
        prompts.append({'name': prompt, 'tokens': tokens, **recorded})
    return tensors, {
        'kind': 'text',
        'architecture': 'nemotron',
        'nEmbd': config.hidden_size,
        'nLayers': config.num_hidden_layers,
        'nVocab': config.vocab_size,
        'tokenizer': True,
        'texts': [{'text': text, 'tokens': tokenizer.encode(text).ids} for text in TEXTS],
        'prompts': prompts,
    }


def patches(file):
    """[patches, 2700] and the grid (lines, columns), by transformers' own preprocessing."""
    processor = FuyuImageProcessorPil()
    image = Image.open(FOLDER / file)
    width, height = image.size
    pixels = np.asarray(processor([image])['images'], dtype=np.float32).reshape(3, 1080, 1920)
    lines, columns = -(-height // PATCH), -(-width // PATCH)
    pixels = pixels[:, : lines * PATCH, : columns * PATCH]
    return torch.from_numpy(processor.patchify_image(pixels[None]).copy()), (lines, columns)


def mantis_ids(template, tokenizer, ids):
    """What Mantis' processor makes of text around pictures: (ids, [(file, first row, rows)])."""
    pieces = [[]]
    for piece in template:
        if piece.endswith('.png'):
            pieces.append(piece)
            pieces.append([])
        else:
            pieces[-1].append(piece)
    stream, images = [], []
    for i, piece in enumerate(pieces):
        if isinstance(piece, str):
            lines, columns = patches(piece)[1]
            stream.append(ids[BEGIN])
            images.append((piece, len(stream), lines * (columns + 1)))
            stream += ([ids[SPEAKER]] * columns + [ids[NEWLINE]]) * lines
            stream.append(ids[END])
            continue
        text = ''.join(piece) + ('' if i == len(pieces) - 1 else f'image {i // 2}: ')
        if text:
            stream += [1, *tokenizer.encode(text, add_special_tokens=False).ids]
    return stream, images


PROMPTS = {
    'one-picture': ['Q:', PICTURES[0], '\nA:'],
    'two-pictures': ['Q:', PICTURES[1], '\nA:Sweden\n\nQ:', PICTURES[2], '\nA:'],
    'side-by-side': [PICTURES[0], PICTURES[1], 'the country:'],
}


def make_fuyu(checkpoint, out):
    tokenizer, scores = build_tokenizer()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (BEGIN, END)])
    ids = {name: tokenizer.token_to_id(name) for name in (SPEAKER, NEWLINE, BEGIN, END)}
    # As in Mantis' checkpoint, the tokens that it added lie behind Fuyu's vocabulary.
    config = FuyuConfig(text_config=text_settings(tokenizer.get_vocab_size()) | {'model_type': 'persimmon'}, image_token_id=ids[SPEAKER])
    model = randomise(FuyuForCausalLM(config), seed=42, gains={'vision_embed_tokens': 3.0})
    model.save_pretrained(checkpoint)
    save_tokenizer(checkpoint, tokenizer, add_bos=False)
    settings = {'image_mean': 0.5, 'image_std': 0.5, 'patch_size': {'height': PATCH, 'width': PATCH}}
    (checkpoint / 'preprocessor_config.json').write_text(
        json.dumps({**settings, 'size': {'height': 1080, 'width': 1920}, 'padding_value': 1.0})
    )
    state = {key.replace('model.language_model.', 'model.').replace('model.vision_embed_tokens', 'vision'): value
             for key, value in model.state_dict().items()}
    text = config.text_config
    write_text_gguf(out / 'mantis-fuyu.gguf', 'tiny-mantis-fuyu', text, state, tokenizer, scores, add_bos=False)
    write_mmproj(out / 'mantis-fuyu.mmproj.gguf', 'tiny-mantis-fuyu-mmproj', state, ids)

    tensors, prompts = {}, []
    for name, template in PROMPTS.items():
        stream, images = mantis_ids(template, tokenizer, ids)
        flat = torch.cat([patches(file)[0] for file, _, _ in images])[None]
        inputs = {'input_ids': torch.tensor([stream]), 'image_patches': flat}
        listed = []
        for file, at, rows in images:
            with torch.no_grad():
                embedded = model.get_input_embeddings()(torch.tensor(stream[at : at + rows]))
                embedded[torch.tensor(stream[at : at + rows]) == ids[SPEAKER]] = model.model.vision_embed_tokens(patches(file)[0])
            tensors[f'{file}.embeddings'] = embedded
            listed.append({'file': file, 'at': at, 'rows': rows, 'embeddings': f'{file}.embeddings'})
        last = listed[-1]
        # A text token, a patch and a newline row.
        middles = [last['at'] - 2, last['at'] + patches(last['file'])[1][1], last['at'] + 1]
        recorded = record_prompt(
            model, model.model.language_model.layers, inputs, name, middles, tensors, seed=300
        )
        tokens = list(stream)
        for image in listed:
            tokens[image['at'] : image['at'] + image['rows']] = [-1] * image['rows']
        parts = [{'image': piece} if piece.endswith('.png') else piece for piece in template]
        prompts.append({'name': name, 'parts': parts, 'tokens': tokens, 'images': listed, **recorded})
    return tensors, {
        'mmproj': 'mantis-fuyu.mmproj.gguf',
        'kind': 'vision',
        'architecture': 'nemotron',
        'nEmbd': text.hidden_size,
        'nLayers': text.num_hidden_layers,
        'nVocab': text.vocab_size,
        'tokenizer': True,
        'texts': [],
        'prompts': prompts,
    }


def make(name, checkpoint, out, _convert):
    return (make_persimmon if name == 'persimmon' else make_fuyu)(checkpoint, out)
