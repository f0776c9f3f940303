"""The text-only families. Sizes keep each GGUF near 400 KB; ff differs from n_embd, and key/value heads from heads."""

import json

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    HYV3Config,
    HYV3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from record import record_prompt
from tiny import randomise, save_tokenizer

COMMON = dict(
    vocab_size=288,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=512,
    attn_implementation='eager',
    bos_token_id=0,
    eos_token_id=1,
    pad_token_id=None,
)
GQA = dict(num_key_value_heads=2)
# Heads that are wider than n_embd / heads, as in these families' published models.
NARROW = {**COMMON, 'hidden_size': 48, 'head_dim': 16}


def llama():
    config = LlamaConfig(**COMMON, **GQA, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False)
    return randomise(LlamaForCausalLM(config), seed=11)


def qwen2():
    config = Qwen2Config(**COMMON, **GQA, rms_norm_eps=1e-6, rope_theta=1e6, tie_word_embeddings=True)
    return randomise(Qwen2ForCausalLM(config), seed=12, embedding_std=0.3)


def gemma2():
    # The real caps (50 and 30) never bite at these sizes, nor does a window of 4096: small ones show mistakes.
    config = Gemma2Config(
        **{**COMMON, 'num_hidden_layers': 4, 'hidden_size': 48},
        **GQA,
        head_dim=16,
        query_pre_attn_scalar=16,
        attn_logit_softcapping=3.0,
        final_logit_softcapping=6.0,
        sliding_window=8,
        rms_norm_eps=1e-6,
    )
    # Gemma scales embeddings by sqrt(n_embd), and its head is the embedding matrix.
    return randomise(Gemma2ForCausalLM(config), seed=13, embedding_std=0.5, norm_offset=0.0)


def gpt_neox():
    config = GPTNeoXConfig(
        **COMMON, rotary_pct=0.25, use_parallel_residual=True, layer_norm_eps=1e-5, tie_word_embeddings=False
    )
    return randomise(GPTNeoXForCausalLM(config), seed=14)


def phi3():
    config = Phi3Config(**COMMON, **GQA, rms_norm_eps=1e-5, tie_word_embeddings=False)
    return randomise(Phi3ForCausalLM(config), seed=15)


def mistral():
    # No window: llama.cpp runs Mistral as a Llama, without one; the window of Mistral-7B-v0.1 is 4096 tokens.
    config = MistralConfig(**NARROW, **GQA, rms_norm_eps=1e-5, sliding_window=None, tie_word_embeddings=False)
    return randomise(MistralForCausalLM(config), seed=16)


def qwen3():
    config = Qwen3Config(**NARROW, **GQA, rms_norm_eps=1e-6, tie_word_embeddings=True)
    return randomise(Qwen3ForCausalLM(config), seed=17, embedding_std=0.3)


# The three whose graphs select the rows with outputs behind their last block. Experts are few and small: one weight holds all
# of them, hence its gain.


def gpt_oss():
    config = GptOssConfig(
        **{**COMMON, 'num_hidden_layers': 4, 'intermediate_size': 32},
        **GQA,
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=8,
        layer_types=['sliding_attention', 'full_attention'] * 2,
        rms_norm_eps=1e-5,
        rope_parameters={'rope_type': 'default', 'rope_theta': 150000.0},
        tie_word_embeddings=False,
    )
    return randomise(GptOssForCausalLM(config), seed=18, gains={'experts': 12.0})


def gemma4():
    # The dense ones, without keys and values shared by layers and without an embedding a layer.
    config = Gemma4TextConfig(
        **{**COMMON, 'num_hidden_layers': 4, 'hidden_size': 48},
        **GQA,
        head_dim=16,
        global_head_dim=32,
        num_global_key_value_heads=1,
        attention_k_eq_v=True,
        hidden_size_per_layer_input=0,
        vocab_size_per_layer_input=288,
        sliding_window=8,
        layer_types=['sliding_attention', 'full_attention'] * 2,
        final_logit_softcapping=6.0,
        rms_norm_eps=1e-6,
    )
    return randomise(Gemma4ForCausalLM(config), seed=19, embedding_std=0.5)


def hy_v3():
    config = HYV3Config(
        **COMMON,
        **GQA,
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
    )
    return randomise(HYV3ForCausalLM(config), seed=20, gains={'experts': 8.0})


# name: (model maker, path to the decoder layers, pre-tokenizer of the GGUF or None for no tokenizer at all)
FAMILIES = {
    'llama': (llama, 'model.layers', 'gpt-2'),
    'qwen2': (qwen2, 'model.layers', None),
    'gemma2': (gemma2, 'model.layers', None),
    'gpt-neox': (gpt_neox, 'gpt_neox.layers', None),
    'phi3': (phi3, 'model.layers', None),
    'mistral': (mistral, 'model.layers', None),
    'qwen3': (qwen3, 'model.layers', None),
    'gpt-oss': (gpt_oss, 'model.layers', None),
    'gemma4': (gemma4, 'model.layers', None),
    'hy-v3': (hy_v3, 'model.layers', None),
}
# llama.cpp's name of the architecture, where it is another one.
ARCHITECTURES = {'gpt-neox': 'gptneox', 'mistral': 'llama', 'hy-v3': 'hy_v3'}
# What the converter reads from a configuration of transformers 4 and does not find in one of transformers 5.
RENAMED = {'gpt-neox': {'rotary_pct': 0.25}}
TEXTS = ['Q:Sweden\nA:', 'The capital city of the country:', ' two  spaces, 3.14 and "åäö" 🙂\n\n']


def make(name, checkpoint, out, convert):
    """Writes the checkpoint and the GGUF file; returns the reference tensors and the index entry."""
    build, layers_path, pre_tokenizer = FAMILIES[name]
    model = build()
    model.save_pretrained(checkpoint)
    texts = []
    if name == 'gemma4':  # the converter counts its tokens there
        vocab = {str(i): i for i in range(COMMON['vocab_size'])}
        (checkpoint / 'tokenizer.json').write_text(json.dumps({'model': {'vocab': vocab}, 'added_tokens': []}))
    if pre_tokenizer is not None:
        tokenizer = save_tokenizer(checkpoint, COMMON['vocab_size'], ['<s>', '</s>'], add_bos=True)
        texts = [{'text': t, 'tokens': [0, *tokenizer.encode(t, add_special_tokens=False)]} for t in TEXTS]
    convert.convert_text(checkpoint, out / f'{name}.gguf', f'tiny-{name}', pre_tokenizer, RENAMED.get(name, {}))

    layers = model.get_submodule(layers_path)
    generator = torch.Generator().manual_seed(100)
    tensors, prompts = {}, []
    # 24 tokens: three times gemma2's window; 5: within it.
    for prompt, length, middles in (('long', 24, [7, 17]), ('short', 5, [2])):
        tokens = torch.randint(2, model.config.vocab_size, (length,), generator=generator).tolist()
        recorded = record_prompt(
            model, layers, {'input_ids': torch.tensor([tokens])}, prompt, middles, tensors, seed=200 + length
        )
        prompts.append({'name': prompt, 'tokens': tokens, **recorded})
    return tensors, {
        'kind': 'text',
        'architecture': ARCHITECTURES.get(name, name),
        'nEmbd': model.config.hidden_size,
        'nLayers': len(layers),
        'nVocab': model.config.vocab_size,
        'tokenizer': pre_tokenizer is not None,
        'texts': texts,
        'prompts': prompts,
    }
