"""What transformers makes of the tools' inputs, for compare.mjs.

    python reference.py MODEL.gguf OUT.json
    python reference.py --widen MODEL.gguf F32.gguf       the same weights in F32, which both sides then read

MODEL.gguf is a Llama-like model in F32 with a tokenizer; transformers reads it itself. Needs what bench/peers/requirements.txt lists.
"""

import hashlib
import json
import os
import sys

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH = 48
NEW_TOKENS = 20
TEXTS = {
    'positive': ['I love this, it is wonderful', 'What a great and happy day'],
    'negative': ['I hate this, it is terrible', 'What a bad and sad day'],
    'prompt': 'Yesterday I saw a film, and I thought that it was',
    'from': 'The capital of France is the city of',
    'into': 'The capital of Japan is the city of',
    'right': ' Paris',
    'wrong': ' Tokyo',
    'shots': [('Peru', 'Lima'), ('Cuba', 'Havana'), ('Kenya', 'Nairobi'), ('Greece', 'Athens'), ('Egypt', 'Cairo')],
}


class Hooked:
    """A Llama-like model whose states are read and overwritten, row by row."""

    def __init__(self, model):
        self.model = model
        self.layers = model.model.layers
        self.heads = model.config.num_attention_heads
        self.seen = {}
        self.edits = {}
        for i, layer in enumerate(self.layers):
            layer.register_forward_hook(lambda _, __, out, i=i: self.out('resid_post', i, out))
            layer.register_forward_pre_hook(lambda _, args, i=i: self.note('resid_pre', i, args[0]))
            layer.self_attn.o_proj.register_forward_pre_hook(lambda _, args, i=i: (self.out('z', i, args[0]),))
            layer.self_attn.o_proj.register_forward_hook(lambda _, __, out, i=i: self.note('attn_out', i, out))
            layer.mlp.register_forward_hook(lambda _, __, out, i=i: self.note('mlp_out', i, out))

    def note(self, hook, layer, states):
        self.seen[hook, layer] = states

    def out(self, hook, layer, out):
        states = out[0] if isinstance(out, tuple) else out
        if (hook, layer) in self.edits:
            states = states.clone()
            for edit in self.edits[hook, layer]:
                edit(states)
        self.note(hook, layer, states)
        return (states, *out[1:]) if isinstance(out, tuple) else states

    def run(self, rows, edits=()):
        """Logits of the last position. Edits are (hook, layer, function of the states of all rows)."""
        self.edits = {}
        for hook, layer, edit in edits:
            self.edits.setdefault((hook, layer), []).append(edit)
        with torch.no_grad():
            return self.model(torch.tensor(rows), use_cache=False).logits[:, -1].double()

    def each(self, row, edits):
        """Logits of one row under each of many edits, each alone: (hook, layer, function of the row's states)."""
        found = []
        for first in range(0, len(edits), BATCH):
            some = edits[first : first + BATCH]
            alone = [(hook, layer, lambda states, i=i, f=f: f(states[i])) for i, (hook, layer, f) in enumerate(some)]
            found.append(self.run([row] * len(some), alone))
        return torch.cat(found)


def steering(net, inputs):
    layer, strength = len(net.layers) // 2, 2.0
    def mean(rows):
        return torch.stack([(net.run([row]), net.seen['resid_post', layer][0, -1])[1] for row in rows]).mean(0)
    direction = mean(inputs['positive']) - mean(inputs['negative'])
    def add(states):
        states += strength * direction
    tokens, margin = [], float('inf')
    plain = []
    for edits, said in (([('resid_post', layer, add)], tokens), ([], plain)):
        for _ in range(NEW_TOKENS):
            logits = net.run([inputs['prompt'] + said], edits)[0]
            best = logits.topk(2)
            margin = min(margin, (best.values[0] - best.values[1]).item())
            said.append(best.indices[0].item())
    return {'layer': layer, 'strength': strength, 'tokens': tokens, 'plain': plain, 'margin': margin}


def patching_map(net, inputs):
    difference = lambda logits: logits[..., inputs['right']] - logits[..., inputs['wrong']]
    clean = difference(net.run([inputs['from']])[0]).item()
    states = [net.seen['resid_post', layer][0].clone() for layer in range(len(net.layers))]
    corrupt = difference(net.run([inputs['into']])[0]).item()
    def write(layer, position):
        def edit(row):
            row[position] = states[layer][position]
        return edit
    places = [(layer, position) for layer in range(len(states)) for position in range(len(inputs['into']))]
    values = difference(net.each(inputs['into'], [('resid_post', layer, write(layer, p)) for layer, p in places]))
    return {'clean': clean, 'corrupt': corrupt, 'values': values.view(len(states), -1).tolist()}


def head_effects(net, inputs):
    """Average indirect effects, as Todd et al. (2024)."""
    size = net.model.config.hidden_size // net.heads
    means = [0] * len(net.layers)
    for row in inputs['shown']:
        net.run([row])
        for layer in range(len(means)):
            means[layer] = means[layer] + net.seen['z', layer][0, -1] / len(inputs['shown'])
    def write(layer, head):
        part = slice(head * size, (head + 1) * size)
        def edit(row):
            row[-1, part] = means[layer][part]
        return edit
    places = [(layer, head) for layer in range(len(means)) for head in range(net.heads)]
    effects, plain = torch.zeros(len(places), dtype=torch.float64), 0.0
    for row, answer in inputs['shuffled']:
        before = net.run([row])[0].softmax(-1)[answer].item()
        after = net.each(row, [('z', layer, write(layer, head)) for layer, head in places]).softmax(-1)[:, answer]
        effects += (after - before) / len(inputs['shuffled'])
        plain += before / len(inputs['shuffled'])
    return {'plain': plain, 'effects': effects.view(len(means), -1).tolist()}


def attribution(net, inputs):
    logits = net.run([inputs['from']])[0]
    weights, norm = net.model.lm_head.weight.double(), net.model.model.norm
    direction = (weights[inputs['right']] - weights[inputs['wrong']]) * norm.weight.double()
    last = net.seen['resid_post', len(net.layers) - 1][0, -1].double()
    scale = (last.square().mean() + norm.variance_epsilon).rsqrt()
    share = lambda hook, layer: (net.seen[hook, layer][0, -1].double() @ direction * scale).item()
    return {
        'difference': (logits[inputs['right']] - logits[inputs['wrong']]).item(),
        'embed': share('resid_pre', 0),
        **{hook: [share(hook, layer) for layer in range(len(net.layers))] for hook in ('attn_out', 'mlp_out')},
    }


def text_inputs(tokenizer):
    ids = lambda text: tokenizer(text, add_special_tokens=False)['input_ids']
    asked = lambda pairs, query: ''.join(f'Q:{x}\nA:{y}\n\n' for x, y in pairs) + f'Q:{query}\nA:'
    shots, shown, shuffled = TEXTS['shots'], [], []
    for i, (query, answer) in enumerate(shots):
        others = shots[:i] + shots[i + 1 :]
        labels = [y for _, y in others[1:] + others[:1]]
        shown.append(ids(asked(others, query)))
        # The right answer's own first token, as the prompt goes on with it.
        whole = ids(asked(others, query) + answer)
        if i < 2:
            shuffled.append((ids(asked([(x, y) for (x, _), y in zip(others, labels)], query)), whole[len(shown[-1])]))
    one = {name: [ids(text) for text in TEXTS[name]] for name in ('positive', 'negative')}
    one.update({name: ids(TEXTS[name]) for name in ('prompt', 'from', 'into')})
    one.update({name: ids(TEXTS[name])[-1] for name in ('right', 'wrong')})
    return {**one, 'shown': shown, 'shuffled': shuffled}


def main(path, out):
    torch.set_num_threads(1)
    folder, name = os.path.split(os.path.abspath(path))
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    inputs = text_inputs(AutoTokenizer.from_pretrained(folder, gguf_file=name))
    net = Hooked(model)
    with open(path, 'rb') as file:
        hash = hashlib.file_digest(file, 'sha256').hexdigest()
    found = {
        'model': {'file': name, 'sha256': hash},
        'made with': f'transformers {transformers.__version__}, PyTorch {torch.__version__}',
        'inputs': inputs,
        'steering': steering(net, inputs),
        'map': patching_map(net, inputs),
        'heads': head_effects(net, inputs),
        'attribution': attribution(net, inputs),
    }
    with open(out, 'w') as file:
        json.dump(json.loads(json.dumps(found), parse_float=lambda x: round(float(x), 7)), file)
        file.write('\n')


if __name__ == '__main__':
    if sys.argv[1] == '--widen':
        sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', '..', 'bench', 'peers'))
        from weights import widen

        widen(*sys.argv[2:4], np.float32)
    else:
        main(*sys.argv[1:3])
