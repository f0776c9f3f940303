"""Reference values: block outputs, logits, and logits under interventions, from a transformers model in float32."""

from contextlib import contextmanager

import torch


def _apply(hidden, intervention):
    for position in intervention['positions']:
        row = hidden[0, position]
        match intervention['op']:
            case 'replace':
                row = intervention['value']
            case 'add':
                row = row + intervention.get('factor', 1.0) * intervention['value']
            case 'scale':
                row = row * intervention['factor']
            case 'zero':
                row = torch.zeros_like(row)
        hidden[0, position] = row


@contextmanager
def _hooked(layers, interventions, states):
    def hook(index):
        def run(_module, _inputs, output):
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            for intervention in interventions:
                if intervention['layer'] == index:
                    _apply(hidden, intervention)
            states[index] = hidden[0].clone()
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return run

    handles = [layer.register_forward_hook(hook(i)) for i, layer in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def run(model, layers, inputs, interventions=()):
    """Returns block outputs [layers, positions, n_embd] (after interventions, before the final norm) and logits."""
    states = {}
    with torch.no_grad(), _hooked(layers, interventions, states):
        logits = model(**inputs, use_cache=False).logits[0]
    return torch.stack([states[i] for i in range(len(layers))]), logits


def read_out(model, states):
    """The logit lens: states of any layer after the model's final norm, and the logits of its head (and cap) for these."""
    decoder = model.get_decoder()
    norm = next(getattr(decoder, name) for name in ('norm', 'final_layer_norm', 'final_layernorm') if hasattr(decoder, name))
    with torch.no_grad():
        normed = norm(states)
        logits = model.get_output_embeddings()(normed)
    cap = getattr(model.config.get_text_config(), 'final_logit_softcapping', None)
    return normed, logits if cap is None else cap * torch.tanh(logits / cap)


def standard_interventions(n_layers, length, middles, vector):
    """The cases of every prompt. vector(layer, position) draws a value of the size of the state it meets.

    middles are positions before the last one: in a prompt with pictures, one of text and one inside a picture.
    """
    last = length - 1
    deep = n_layers - 1
    mid = n_layers // 2

    def case(op, layer, position, **amount):
        return {'hook': 'resid_post', 'layer': layer, 'positions': [position], 'op': op, **amount}

    cases = {
        'replace-first-layer-last-token': [case('replace', 0, last, value=vector(0, last))],
        'replace-middle-layer-last-token': [case('replace', mid, last, value=vector(mid, last))],
        'replace-last-layer-last-token': [case('replace', deep, last, value=vector(deep, last))],
        'add-last-token': [case('add', mid, last, value=vector(mid, last))],
    }
    for i, middle in enumerate(middles):
        cases[f'replace-middle-token-{i}'] = [case('replace', 0, middle, value=vector(0, middle))]
        cases[f'add-middle-token-{i}'] = [case('add', mid - 1, middle, value=vector(mid - 1, middle), factor=2.0)]
        cases[f'scale-middle-token-{i}'] = [case('scale', mid - 1, middle, factor=-0.5)]
        cases[f'zero-middle-token-{i}'] = [case('zero', 0, middle)]
    cases['two-layers'] = [
        case('replace', 0, middles[-1], value=vector(0, middles[-1])),
        case('add', deep, last, value=vector(deep, last)),
    ]
    return cases


def record_prompt(model, layers, inputs, name, middles, tensors, seed, without=()):
    """Fills tensors and returns the prompt's part of the index. without: operations to leave out."""
    states, logits = run(model, layers, inputs)
    n_layers, length, n_embd = states.shape
    tensors[f'{name}.states'] = states
    tensors[f'{name}.logits'] = logits
    torch.testing.assert_close(read_out(model, states[-1])[1], logits)
    read = [middles[-1], length - 1]
    tensors[f'{name}.normed'], tensors[f'{name}.lens'] = read_out(model, states[:, read])
    generator = torch.Generator().manual_seed(seed)

    def vector(layer, position):
        size = states[layer, position].pow(2).mean().sqrt()
        return size * torch.randn(n_embd, generator=generator)

    cases = []
    for case_name, interventions in standard_interventions(n_layers, length, middles, vector).items():
        if any(intervention['op'] in without for intervention in interventions):
            continue
        patched_states, patched_logits = run(model, layers, inputs, interventions)
        key = f'{name}.{case_name}'
        if torch.allclose(patched_logits[-1], logits[-1], atol=1e-2):
            raise ValueError(f'{key}: the intervention does not reach the last logits, so the case would test nothing')
        tensors[f'{key}.states'] = patched_states[:, -1]
        tensors[f'{key}.logits'] = patched_logits[-1]
        listed = []
        for i, intervention in enumerate(interventions):
            if 'value' in intervention:
                tensors[f'{key}.value.{i}'] = intervention['value']
                intervention = {**intervention, 'value': f'{key}.value.{i}'}
            listed.append(intervention)
        cases.append(
            {'name': case_name, 'interventions': listed, 'states': f'{key}.states', 'logits': f'{key}.logits'}
        )
    lens = {'positions': read, 'normed': f'{name}.normed', 'logits': f'{name}.lens'}
    return {'states': f'{name}.states', 'logits': f'{name}.logits', 'lens': lens, 'cases': cases}
