"""LLaVA: a Llama decoder behind an image encoder and a two-layer projector.

Two towers, because llama.cpp treats them differently: CLIP with its class token and quick GELU, as in LLaVA-1.5, and
SigLIP with a patch bias, tanh GELU and no class token. llama.cpp's converter has no CLIP tower, so the mmproj is
written here, with the keys and names of tools/mtmd/legacy-models/convert_image_encoder_to_gguf.py.
"""

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

from pictures import SQUARE, load_pixels
from tiny import randomise, save_tokenizer
from vision import index_entry, record_vision

IMAGE_SIZE = 32
PATCH_SIZE = 8
ROWS = (IMAGE_SIZE // PATCH_SIZE) ** 2
# CLIP's own; both towers use them here.
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
SPECIALS = ['<s>', '</s>', '<image>']
IMAGE_TOKEN = SPECIALS.index('<image>')
TOWER = dict(
    hidden_size=48,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=3,
    image_size=IMAGE_SIZE,
    patch_size=PATCH_SIZE,
)
TOWERS = {
    'llava': (CLIPVisionConfig(**TOWER, hidden_act='quick_gelu', layer_norm_eps=1e-5), 'default', 21),
    'llava-siglip': (
        SiglipVisionConfig(**TOWER, hidden_act='gelu_pytorch_tanh', layer_norm_eps=1e-6, vision_use_head=False),
        'full',
        22,
    ),
}
FAMILIES = list(TOWERS)


def build(name):
    tower, strategy, seed = TOWERS[name]
    text = LlamaConfig(
        vocab_size=288,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
    )
    config = LlavaConfig(
        vision_config=tower,
        text_config=text,
        image_token_id=IMAGE_TOKEN,
        projector_hidden_act='gelu',
        vision_feature_select_strategy=strategy,
        vision_feature_layer=-2,
        image_seq_length=ROWS,
        tie_word_embeddings=False,
        attn_implementation='eager',
    )
    return randomise(LlavaForConditionalGeneration(config), seed, gains={'linear_1': 1.5, 'linear_2': 0.7})


def write_mmproj(model, path, name):
    import gguf

    vision = model.config.vision_config
    blocks = vision.num_hidden_layers + 1 + model.config.vision_feature_layer  # hidden_states[-2]: the last block unused
    writer = gguf.GGUFWriter(path, 'clip')
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_bool('clip.has_vision_encoder', True)
    writer.add_bool('clip.has_llava_projector', True)
    writer.add_string('clip.projector_type', 'mlp')
    writer.add_bool('clip.use_gelu', vision.hidden_act != 'quick_gelu')
    writer.add_uint32('clip.vision.image_size', vision.image_size)
    writer.add_uint32('clip.vision.patch_size', vision.patch_size)
    writer.add_uint32('clip.vision.embedding_length', vision.hidden_size)
    writer.add_uint32('clip.vision.feed_forward_length', vision.intermediate_size)
    writer.add_uint32('clip.vision.block_count', blocks)
    writer.add_uint32('clip.vision.projection_dim', model.config.text_config.hidden_size)
    writer.add_uint32('clip.vision.attention.head_count', vision.num_attention_heads)
    writer.add_float32('clip.vision.attention.layer_norm_epsilon', vision.layer_norm_eps)
    writer.add_array('clip.vision.image_mean', MEAN)
    writer.add_array('clip.vision.image_std', STD)
    # Without this key mtmd leaves out the last of the blocks it finds.
    writer.add_array('clip.vision.feature_layer', [blocks])

    state = {k.removeprefix('model.'): v for k, v in model.state_dict().items()}
    tower = {
        k.removeprefix('vision_tower.').removeprefix('vision_model.'): v
        for k, v in state.items()
        if k.startswith('vision_tower.')
    }

    def add(gguf_name, tensor):
        writer.add_tensor(gguf_name, tensor.detach().float().contiguous().numpy())

    def add_pair(gguf_name, hf_name, tensors):
        add(f'{gguf_name}.weight', tensors[f'{hf_name}.weight'])
        add(f'{gguf_name}.bias', tensors[f'{hf_name}.bias'])

    add('v.patch_embd.weight', tower['embeddings.patch_embedding.weight'])
    if 'embeddings.patch_embedding.bias' in tower:
        add('v.patch_embd.bias', tower['embeddings.patch_embedding.bias'])
    add('v.position_embd.weight', tower['embeddings.position_embedding.weight'])
    if 'embeddings.class_embedding' in tower:
        add('v.class_embd', tower['embeddings.class_embedding'])
        add_pair('v.pre_ln', 'pre_layrnorm', tower)
    names = {
        'self_attn.q_proj': 'attn_q',
        'self_attn.k_proj': 'attn_k',
        'self_attn.v_proj': 'attn_v',
        'self_attn.out_proj': 'attn_out',
        'layer_norm1': 'ln1',
        'layer_norm2': 'ln2',
        'mlp.fc1': 'ffn_up',
        'mlp.fc2': 'ffn_down',
    }
    for i in range(blocks):
        for hf_name, gguf_name in names.items():
            add_pair(f'v.blk.{i}.{gguf_name}', f'encoder.layers.{i}.{hf_name}', tower)
    add_pair('mm.0', 'multi_modal_projector.linear_1', state)
    add_pair('mm.2', 'multi_modal_projector.linear_2', state)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(name, checkpoint, out, convert):
    model = build(name)
    model.save_pretrained(checkpoint)
    tokenizer = save_tokenizer(checkpoint, 288, SPECIALS, add_bos=True)
    convert.convert_text(checkpoint, out / f'{name}.gguf', f'tiny-{name}', 'gpt-2', {})
    write_mmproj(model, out / f'{name}.mmproj.gguf', f'tiny-{name}-mmproj')

    pixels = {file: load_pixels(file, MEAN, STD) for file in SQUARE}

    def embed(file):
        return model.get_image_features(pixel_values=pixels[file][None]).pooler_output[0]

    def inputs(ids, files):
        return {'input_ids': ids, 'pixel_values': torch.stack([pixels[file] for file in files])}

    tensors, prompts = record_vision(model, tokenizer, SQUARE, embed, inputs, IMAGE_TOKEN, bos=[0])
    return tensors, index_entry(name, model, 'llama', prompts)
