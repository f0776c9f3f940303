"""Makes tests/fixtures/checkpoints: tiny checkpoints as on the hub, and what GGUF files of them must hold.

The text of Idefics2 is converted by llama.cpp's own converter, which lacks only the name of the class; what it has no code
for (the picture encoders, Persimmon) is laid out here by numpy, and fuyu.py.

    python conversion.py --llama-cpp /path/to/llama.cpp
"""

import argparse
import hashlib
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True

import numpy as np
import sentencepiece
import torch
from transformers import FuyuConfig, FuyuForCausalLM, Idefics2Config, Idefics2ForConditionalGeneration, PersimmonConfig, PersimmonForCausalLM

import convert
import fuyu
from tiny import CORPUS, randomise

OUT = Path(__file__).resolve().parent.parent / 'fixtures' / 'checkpoints'
IMAGE_TOKENS = ['<fake_token_around_image>', '<image>', '<end_of_utterance>']
PIECES = 320
# Four rows more than tokens.
ROWS = PIECES + len(IMAGE_TOKENS) + 4


def save_sentencepiece(folder):
    """A BPE as Mistral has it, both as tokenizer.model and as the tokenizer.json that transformers makes of it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter('\n'.join(3 * CORPUS).split('\n')),
        model_writer=model,
        vocab_size=PIECES,
        model_type='bpe',
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        character_coverage=1.0,
        normalization_rule_name='identity',
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (folder / 'tokenizer.model').write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    vocab = {pieces.id_to_piece(i): i for i in range(PIECES)}
    merges = []
    for piece, id in vocab.items():
        for cut in range(1, len(piece)) if not piece.startswith('<') else ():
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab:
                merges.append((-pieces.get_score(id), vocab[left], vocab[right], left, right))
    tokenizer = Tokenizer(models.BPE(vocab, [m[3:] for m in sorted(merges)], unk_token='<unk>', fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
    tokenizer.decoder = decoders.Sequence([decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(' ', 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(single='<s> $A', pair='<s> $A <s> $B', special_tokens=[('<s>', 1)])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ('<unk>', '<s>', '</s>', *IMAGE_TOKENS)])
    (folder / 'tokenizer.json').write_text(tokenizer.to_str(pretty=False))
    added = {0: '<unk>', 1: '<s>', 2: '</s>', **{PIECES + i: token for i, token in enumerate(IMAGE_TOKENS)}}
    config = {
        'tokenizer_class': 'LlamaTokenizer',
        'bos_token': '<s>',
        'eos_token': '</s>',
        'unk_token': '<unk>',
        'pad_token': '<unk>',
        'add_bos_token': True,
        'add_eos_token': False,
        'add_prefix_space': True,
        'added_tokens_decoder': {str(id): {'content': token, 'special': True} for id, token in added.items()},
        'chat_template': '{% for message in messages %}{{ message.content }}{% endfor %}',
    }
    (folder / 'tokenizer_config.json').write_text(json.dumps(config))


def make_idefics2(folder):
    vision = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=56, patch_size=14)
    perceiver = dict(hidden_size=64, resampler_n_latents=4, resampler_depth=1, resampler_n_heads=4, resampler_head_dim=16, num_key_value_heads=2, rms_norm_eps=1e-5)
    text = dict(model_type='mistral', vocab_size=ROWS, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5)
    config = Idefics2Config(vision_config=vision, perceiver_config=perceiver, text_config=text, image_token_id=PIECES + 1)
    model = randomise(Idefics2ForConditionalGeneration(config), seed=5).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size='150KB')
    save_sentencepiece(folder)
    settings = {'image_mean': [0.5] * 3, 'image_std': [0.5] * 3, 'size': {'longest_edge': 56, 'shortest_edge': 28}}
    (folder / 'preprocessor_config.json').write_text(json.dumps(settings))
    (folder / 'README.md').write_text('---\nlicense: apache-2.0\n---\nRandom weights, for tests.\n')
    return model


def text_settings(vocab_size):
    return {**fuyu.text_settings(vocab_size), 'hidden_size': 32, 'intermediate_size': 48, 'num_hidden_layers': 2}


def make_persimmon(folder):
    tokenizer, scores = fuyu.build_tokenizer()
    model = randomise(PersimmonForCausalLM(PersimmonConfig(**text_settings(tokenizer.get_vocab_size()))), seed=6).to(torch.bfloat16)
    model.save_pretrained(folder)
    fuyu.save_tokenizer(folder, tokenizer, add_bos=True)
    return model, tokenizer, scores


def make_fuyu(folder):
    from tokenizers import AddedToken

    tokenizer, scores = fuyu.build_tokenizer()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (fuyu.BEGIN, fuyu.END)])
    settings = {**text_settings(tokenizer.get_vocab_size()), 'model_type': 'persimmon'}
    model = randomise(FuyuForCausalLM(FuyuConfig(text_config=settings)), seed=7).to(torch.float16)
    model.save_pretrained(folder)
    fuyu.save_tokenizer(folder, tokenizer, add_bos=False)
    settings = {'image_mean': 0.5, 'image_std': 0.5, 'size': {'height': 1080, 'width': 1920}, 'padding_value': 1.0}
    (folder / 'preprocessor_config.json').write_text(json.dumps(settings))
    return model, tokenizer, scores


def idefics2_encoder(model):
    """Tensors of the mmproj by their names, float32, in the order of models.md."""
    state = {k.removeprefix('model.'): v.float().numpy() for k, v in model.state_dict().items()}
    tensors = {}

    def take(target, source, kinds=('weight', 'bias')):
        for kind in kinds:
            tensors[f'{target}.{kind}'] = state[f'{source}.{kind}']

    tower, connector = 'vision_model', 'connector.perceiver_resampler'
    take('v.patch_embd', f'{tower}.embeddings.patch_embedding')
    take('v.position_embd', f'{tower}.embeddings.position_embedding', ('weight',))
    take('v.post_ln', f'{tower}.post_layernorm')
    names = dict(ln1='layer_norm1', ln2='layer_norm2', attn_q='self_attn.q_proj', attn_k='self_attn.k_proj', attn_v='self_attn.v_proj', attn_out='self_attn.out_proj', ffn_up='mlp.fc1', ffn_down='mlp.fc2')
    for i in range(model.config.vision_config.num_hidden_layers):
        for target, source in names.items():
            take(f'v.blk.{i}.{target}', f'{tower}.encoder.layers.{i}.{source}')
    for part in ('gate', 'up', 'down'):
        take(f'mm.{part}', f'connector.modality_projection.{part}_proj', ('weight',))
    tensors['resampler.latents'] = state[f'{connector}.latents']
    take('resampler.norm', f'{connector}.norm', ('weight',))
    names = dict(ln_q='input_latents_norm', ln_kv='input_context_norm', ln_ffn='post_attention_layernorm', attn_q='self_attn.q_proj', attn_k='self_attn.k_proj', attn_v='self_attn.v_proj', attn_out='self_attn.o_proj', ffn_gate='mlp.gate_proj', ffn_up='mlp.up_proj', ffn_down='mlp.down_proj')
    for i in range(model.config.perceiver_config.resampler_depth):
        for target, source in names.items():
            take(f'resampler.blk.{i}.{target}', f'{connector}.layers.{i}.{source}', ('weight',))
    return tensors


def digest(data):
    return hashlib.sha256(np.ascontiguousarray(data).view(np.uint8).tobytes()).hexdigest()[:16]


def describe(path, own=True):
    """Keys and tensors of a GGUF file. Long lists by their digest; general.* but the architecture only where it is llama.cpp's."""
    import gguf

    reader = gguf.GGUFReader(path)
    keys, tensors = {}, {}
    for key, field in reader.fields.items():
        if key.startswith('GGUF.'):
            continue
        value = field.contents()
        if isinstance(value, list):
            as_text = json.dumps(value, ensure_ascii=False) if isinstance(value[0], str) else None
            data = np.frombuffer(as_text.encode(), np.uint8) if as_text else np.array(value, dtype=np.float32)
            value = {'length': len(value), 'digest': digest(data)}
        keys[key] = value
    for tensor in reader.tensors:
        tensors[tensor.name] = [tensor.tensor_type.name, [int(n) for n in tensor.shape], digest(tensor.data)]
    return {'keys': keys, 'tensors': tensors}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--llama-cpp', required=True, help='a llama.cpp source tree, for its converter')
    args = parser.parse_args()
    convert.use_llama_cpp(args.llama_cpp)
    import gguf
    from conversion.llama import LlamaModel

    for name in ('idefics2', 'persimmon', 'mantis-fuyu'):
        shutil.rmtree(OUT / name, ignore_errors=True)
        (OUT / name).mkdir(parents=True)
    expected = {}
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        model = make_idefics2(OUT / 'idefics2')
        for kind, ftype in (('f32', 'ALL_F32'), ('f16', 'MOSTLY_F16'), ('q8_0', 'MOSTLY_Q8_0')):
            path = scratch / f'{kind}.gguf'
            LlamaModel(OUT / 'idefics2', getattr(gguf.LlamaFileType, ftype), path).write()
            expected[f'idefics2-{kind}'] = describe(path)
        expected['mmproj-idefics2-f32'] = {
            'tensors': {k: ['F32', list(v.shape)[::-1], digest(v)] for k, v in idefics2_encoder(model).items()}
        }
        for name, make in (('persimmon', make_persimmon), ('mantis-fuyu', make_fuyu)):
            model, tokenizer, scores = make(OUT / name)
            state = {
                k.replace('model.language_model.', 'model.').replace('model.vision_embed_tokens', 'vision'): v.float()
                for k, v in model.state_dict().items()
            }
            config = getattr(model.config, 'text_config', model.config)
            path = scratch / f'{name}.gguf'
            fuyu.write_text_gguf(path, name, config, state, tokenizer, scores, add_bos=name == 'persimmon')
            expected[f'{name}-f32'] = describe(path)
            if name == 'persimmon':
                continue
            ids = {token: tokenizer.token_to_id(token) for token in (fuyu.NEWLINE, fuyu.BEGIN, fuyu.END)}
            fuyu.write_mmproj(scratch / 'mm.gguf', name, state, ids)
            expected[f'mmproj-{name}-f32'] = describe(scratch / 'mm.gguf')
    for file in OUT.rglob('*.safetensors'):
        file.chmod(0o644)
    (OUT / 'expected.json').write_text(json.dumps(expected, ensure_ascii=False, indent=0) + '\n')


if __name__ == '__main__':
    main()
