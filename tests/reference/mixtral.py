"""A Mixtral: a Llama whose MLP is a mixture of experts. Its GGUF is written here, so that it needs no llama.cpp."""

import torch
from transformers import MixtralConfig, MixtralForCausalLM

from decoders import COMMON, GQA
from tiny import randomise

EXPERTS, USED, EXPERT_FF = 4, 2, 32


def build():
    config = MixtralConfig(
        **{**COMMON, 'intermediate_size': EXPERT_FF},
        **GQA,
        num_local_experts=EXPERTS,
        num_experts_per_tok=USED,
        rms_norm_eps=1e-5,
        sliding_window=None,
        tie_word_embeddings=False,
    )
    return randomise(MixtralForCausalLM(config), seed=23, gains={'experts': 8.0})


def permute(weight, heads):
    """llama.cpp rotates numbers that are neighbours, where transformers rotates halves."""
    return weight.reshape(heads, 2, -1, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)


def write(model, path):
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, 'llama')
    writer.add_name('tiny-mixtral')
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters['rope_theta'])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(USED)
    writer.add_tokenizer_model('none')

    def add(name, tensor):
        writer.add_tensor(f'{name}.weight', tensor.detach().float().contiguous().numpy())

    add('token_embd', model.model.embed_tokens.weight)
    add('output_norm', model.model.norm.weight)
    add('output', model.lm_head.weight)
    for i, layer in enumerate(model.model.layers):
        attention, experts = layer.self_attn, layer.mlp.experts
        add(f'blk.{i}.attn_norm', layer.input_layernorm.weight)
        add(f'blk.{i}.ffn_norm', layer.post_attention_layernorm.weight)
        add(f'blk.{i}.attn_q', permute(attention.q_proj.weight, config.num_attention_heads))
        add(f'blk.{i}.attn_k', permute(attention.k_proj.weight, config.num_key_value_heads))
        add(f'blk.{i}.attn_v', attention.v_proj.weight)
        add(f'blk.{i}.attn_output', attention.o_proj.weight)
        gate, up = experts.gate_up_proj.chunk(2, dim=1)
        add(f'blk.{i}.ffn_gate_inp', layer.mlp.gate.weight)
        add(f'blk.{i}.ffn_gate_exps', gate)
        add(f'blk.{i}.ffn_up_exps', up)
        add(f'blk.{i}.ffn_down_exps', experts.down_proj)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
