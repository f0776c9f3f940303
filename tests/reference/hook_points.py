"""Reference values of every hook point: what transformers computes there, and logits when it is edited there.

The models are those of decoders.py, gemma3.py and llava.py, whose GGUF files are committed, and that of mixtral.py, which is written here too:

    ref/bin/python tests/reference/hook_points.py

`tests/fixtures/hooks/<family>.safetensors` holds, for one prompt of 6 tokens (of llava with a picture among them, -1 for its rows): `tokens`; for each point of layer 1 a tensor of its
name [positions, width], heads side by side; `value.<point>` [width], and `add.<point>`, the last logits when that is added at layer 1,
position 2 (of llava one of its rows); `vision.resid_post` of llava and gemma3 [blocks, patches, width], of square-a.png; `knock-out`, the last logits when the last position sees nothing of the first two, in any layer.
"""

import argparse
import importlib
from pathlib import Path

import torch
from safetensors.torch import save_file

import gemma3
import llava
import mixtral
from decoders import FAMILIES
from pictures import SQUARE, load_pixels

LAYER, POSITION, LENGTH = 1, 2, 6
MODELS = Path(__file__).parents[1] / 'fixtures' / 'models'
LANGUAGE = 'model.language_model.layers'
BUILDERS = {
    **{name: (build, path) for name, (build, path, _) in FAMILIES.items()},
    'gemma3': (gemma3.build, LANGUAGE),
    'llava': (lambda: llava.build('llava'), LANGUAGE),
    'mixtral': (mixtral.build, 'model.layers'),
}
# Gemma 4 multiplies the whole output of a block, so that its parts do not sum to it.
SKIPPED = {'gemma4'}
NORMED_PARTS = {'gemma2', 'gemma3'}


class Points:
    """Hooks on one block that record what passes, after an edit."""

    def __init__(self, name, model, layers):
        self.seen, self.edits, self.handles = {}, {}, []
        self.heads = model.config.get_text_config().num_attention_heads
        layer = layers[LAYER]
        self.attention = getattr(layer, 'self_attn', None) or layer.attention
        output = getattr(self.attention, 'o_proj', None) or self.attention.dense
        if name in NORMED_PARTS:
            attn_out, mlp_out = layer.post_attention_layernorm, layer.post_feedforward_layernorm
            self.before('resid_mid', layer.pre_feedforward_layernorm)
        else:
            attn_out, mlp_out = self.attention, layer.mlp
            if name != 'gpt-neox':
                self.before('resid_mid', layer.post_attention_layernorm, edit=False)
        self.before('resid_pre', layer)
        self.after('resid_post', layer)
        self.after('attn_out', attn_out)
        self.after('mlp_out', mlp_out)
        self.before('z', output)
        if name in ('gpt-oss', 'hy-v3', 'mixtral'):
            gate = layer.mlp.router if name == 'gpt-oss' else layer.mlp.gate
            self.handles.append(gate.register_forward_hook(lambda m, i, o: self.router(m, i)))
        else:
            down = getattr(layer.mlp, 'down_proj', None) or layer.mlp.dense_4h_to_h
            self.before('mlp_post', down)
        self.value(name)
        decoder = getattr(model.model, 'language_model', None) or model.get_decoder()
        norm = next(getattr(decoder, n) for n in ('norm', 'final_layer_norm', 'final_layernorm') if hasattr(decoder, n))
        self.after('final_norm', norm)
        self.before('embed', layers[0])
        # Queries and keys behind their rotation, layer by layer.
        module = importlib.import_module(type(layer).__module__)
        self.rotations, rotate = 0, module.apply_rotary_pos_emb

        def rotated(q, k, *more, **named):
            q, k = rotate(q, k, *more, **named)
            if self.rotations == LAYER:
                q, k = self.headed('q', q), self.headed('k', k)
            self.rotations += 1
            return q, k

        module.apply_rotary_pos_emb = rotated
        self.restore = lambda: setattr(module, 'apply_rotary_pos_emb', rotate)

    def pass_on(self, point, x):
        x = x.clone()
        if point in self.edits:
            x[0, POSITION] += self.edits[point]
        self.seen[point] = x[0].reshape(x.shape[1], -1).clone()
        return x

    def headed(self, point, x):  # [1, heads, positions, size]
        flat = self.pass_on(point, x.transpose(1, 2).reshape(1, x.shape[2], -1))
        return flat.reshape(1, x.shape[2], x.shape[1], -1).transpose(1, 2)

    def before(self, point, module, edit=True):
        def hook(_, inputs, named):
            key = None if inputs else 'hidden_states'
            given = inputs[0] if inputs else named[key]
            x = self.pass_on(point, given)
            if not edit:
                return None
            return ((x, *inputs[1:]), named) if inputs else (inputs, {**named, key: x})

        self.handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def after(self, point, module):
        def hook(_, __, output):
            tail = isinstance(output, tuple)
            x = self.pass_on(point, output[0] if tail else output)
            return (x, *output[1:]) if tail else x

        self.handles.append(module.register_forward_hook(hook))

    def value(self, name):
        if name not in ('phi3', 'gpt-neox'):
            return self.after('v', self.attention.v_proj)
        fused = self.attention.qkv_proj if name == 'phi3' else self.attention.query_key_value

        def hook(_, __, output):
            x = output.clone()
            if name == 'phi3':
                size = self.attention.head_dim * self.attention.config.num_key_value_heads
                x[..., -size:] = self.pass_on('v', x[..., -size:])
            else:  # of each head its query, key and value
                parts = x.reshape(*x.shape[:2], self.heads, 3, -1)
                flat = self.pass_on('v', parts[..., 2, :].reshape(*x.shape[:2], -1))
                parts[..., 2, :] = flat.reshape(*x.shape[:2], self.heads, -1)
                x = parts.reshape(x.shape)
            return x

        self.handles.append(fused.register_forward_hook(hook))

    def router(self, gate, inputs):
        x = inputs[0].reshape(-1, inputs[0].shape[-1]).float()
        self.seen['router'] = torch.nn.functional.linear(x, gate.weight.float(), getattr(gate, 'bias', None))

    def run(self, model, tokens, edits=None, **named):
        self.seen, self.edits, self.rotations = {}, edits or {}, 0
        with torch.no_grad():
            output = model(input_ids=tokens, use_cache=False, output_attentions=True, **named)
        return output

    def close(self):
        self.restore()
        for handle in self.handles:
            handle.remove()


def interleave(x, size):
    """llama.cpp rotates numbers that are neighbours in a Llama, where transformers rotates halves."""
    heads = x.reshape(*x.shape[:-1], -1, 2, size // 2)
    return heads.transpose(-1, -2).reshape(x.shape)


# Blocks that run, mean and deviation of pixels.
TOWERS = {'llava': (2, llava.MEAN, llava.STD), 'gemma3': (2, gemma3.MEAN, gemma3.STD)}


def tower_states(model, blocks, mean, std):
    tower = model.model.vision_tower
    layers = [m for n, m in tower.named_modules() if n.endswith('encoder.layers')][0]
    seen = []
    handles = [
        layer.register_forward_hook(lambda _, __, output: seen.append(output[0] if isinstance(output, tuple) else output))
        for layer in layers[:blocks]
    ]
    with torch.no_grad():
        tower(pixel_values=load_pixels(SQUARE[0], mean, std)[None])
    for handle in handles:
        handle.remove()
    return torch.stack([x.reshape(-1, x.shape[-1]) for x in seen])


def record(name, out):
    build, path = BUILDERS[name]
    model = build().eval()
    if name == 'mixtral':
        mixtral.write(model, MODELS / 'mixtral.gguf')
    layers = model.get_submodule(path)
    points = Points(name, model, layers)
    generator = torch.Generator().manual_seed(300)
    tokens = torch.randint(6 if name in ('gemma3', 'llava') else 2, model.config.get_text_config().vocab_size, (1, LENGTH), generator=generator)
    given, length = {}, LENGTH
    written = tokens[0].to(torch.int32)
    if name == 'llava':
        given = {'pixel_values': load_pixels(SQUARE[0], llava.MEAN, llava.STD)[None]}
        rows = torch.full((1, llava.ROWS), llava.IMAGE_TOKEN)
        tokens = torch.cat([tokens[:, :1], rows, tokens[:, 1:]], 1)
        written, length = torch.where(tokens[0] == llava.IMAGE_TOKEN, -1, tokens[0]).to(torch.int32), tokens.shape[1]
    output = points.run(model, tokens, **given)
    recorded = dict(points.seen)
    recorded['pattern'] = output.attentions[LAYER][0].transpose(0, 1).reshape(length, -1)
    tensors = {'tokens': written, 'logits': output.logits[0, -1]}
    plain = output.logits[0, -1]
    permuted = name in ('llama', 'mistral', 'llava', 'mixtral')
    size = points.attention.head_dim if hasattr(points.attention, 'head_dim') else points.attention.head_size
    for point, x in recorded.items():
        turn = (lambda y: interleave(y, size)) if permuted and point in 'qk' else lambda y: y
        tensors[point] = turn(x)
        # Not from the last norm on: the last logits do not see position 2 there.
        if point in ('router', 'pattern', 'final_norm', 'resid_mid', 'embed'):
            continue
        value = x[POSITION].pow(2).mean().sqrt() * torch.randn(x.shape[-1], generator=generator)
        logits = points.run(model, tokens, {point: value}, **given).logits[0, -1]
        if torch.allclose(logits, plain, atol=1e-3):
            raise ValueError(f'{name}: adding at {point} does not reach the last logits, so the case would test nothing')
        tensors[f'value.{point}'], tensors[f'add.{point}'] = turn(value), logits
    if not getattr(model.config.get_text_config(), 'sliding_window', None):
        mask = torch.full((length, length), float('-inf')).triu(1)
        mask[-1, :2] = float('-inf')
        tensors['knock-out'] = points.run(model, tokens, attention_mask=mask[None, None], **given).logits[0, -1]
    if name in TOWERS:
        tensors['vision.resid_post'] = tower_states(model, *TOWERS[name])
    points.close()
    save_file({key: x.contiguous() for key, x in tensors.items()}, out / f'{name}.safetensors')
    print(name, sorted(tensors))


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--out', type=Path, default=Path(__file__).parents[1] / 'fixtures' / 'hooks')
    parser.add_argument('--only', nargs='*', default=[n for n in BUILDERS if n not in SKIPPED])
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for family in args.only:
        record(family, args.out)
