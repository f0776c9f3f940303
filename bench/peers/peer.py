"""Does the work of the comparison in PyTorch and says how long it took: one line of JSON for each line of JSON that comes in.

    python peer.py KIND HF_FOLDER SPEC.json THREADS

KIND is torch (Hugging Face and forward hooks, written for speed), naive (the same, one prompt and one layer at a time, as the
paper's own code), nnsight or transformer-lens. A line names the work and, for what reads states, the file that gets them.
"""

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM, DynamicCache

KIND, FOLDER, SPEC, THREADS = sys.argv[1:5]
torch.set_num_threads(int(THREADS))
torch.set_grad_enabled(False)
with open(SPEC) as file:
    spec = json.load(file)


def load():
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


def output_of(out):
    return out[0] if isinstance(out, tuple) else out


class Hooks:
    """Forward hooks on the blocks, gone at the end."""

    def __init__(self, layers, make):
        self.handles = [layer.register_forward_hook(make(i)) for i, layer in enumerate(layers)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


class Torch:
    def __init__(self):
        self.model = load()
        self.layers = self.model.model.layers
        self.width = self.model.config.hidden_size
        self.prompt = torch.tensor([spec["prompt"]])
        self.vector = torch.tensor(spec["vector"])

    def capture_last(self, size=None):
        states = torch.empty(len(self.layers), self.width)

        def make(i):
            def hook(_, __, out):
                states[i] = output_of(out)[0, -1]

            return hook

        with Hooks(self.layers, make):
            self.model(self.prompt[:, :size], use_cache=False, logits_to_keep=1)
        return states

    def capture_all(self, size=None):
        layers = self.layers[-size:] if size else self.layers
        states = torch.empty(len(layers), self.prompt.shape[1], self.width)

        def make(i):
            def hook(_, __, out):
                states[i] = output_of(out)[0]

            return hook

        with Hooks(layers, make):
            self.model(self.prompt, use_cache=False, logits_to_keep=1)
        return states

    def patched_rows(self, cache, tokens, vectors, mask=None, positions=None):
        """The last tokens of rows, row i with vectors[i] at layer i % layers; logits."""
        n = len(self.layers)

        def make(i):
            def hook(_, __, out):
                output_of(out)[i::n, -1] = vectors[i]

            return hook

        with Hooks(self.layers, make):
            out = self.model(
                tokens, past_key_values=cache, use_cache=True, attention_mask=mask, position_ids=positions
            )
        return out.logits[:, -1]

    def sweep(self, size=None):
        rows = size or len(self.layers)
        cache = self.model.model(self.prompt[:, :-1], use_cache=True).past_key_values
        cache.batch_repeat_interleave(rows)
        vectors = self.vector.expand(len(self.layers), -1)
        logits = self.patched_rows(cache, self.prompt[:, -1:].expand(rows, 1), vectors)
        return logits.topk(5).values

    def queries(self, size):
        test = spec["evaluation"]["test"]
        for first in range(0, size, 50):
            some = [test[i % len(test)] for i in range(first, min(size, first + 50))]
            ids, mask, positions = self.padded(some)
            logits = self.model(
                ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=1
            ).logits
            logits[:, -1].topk(1)

    def lens(self):
        states = self.states_for_lens()
        logits = self.model.lm_head(self.model.model.norm(states))
        top = logits.topk(10)
        (top.values - logits.logsumexp(-1, keepdim=True)).exp()
        return top.values

    def states_for_lens(self):
        if not hasattr(self, "kept"):
            self.kept = self.capture_all()[:, : spec["lensPositions"]].reshape(-1, self.width).contiguous()
        return self.kept

    def padded(self, prompts):
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)

    def evaluation(self):
        task = spec["evaluation"]
        # Vectors: all prompts in batches of eight, read at the last token.
        sums = torch.zeros(len(self.layers), self.width)
        for first in range(0, len(task["examples"]), 8):
            ids, mask, positions = self.padded(task["examples"][first : first + 8])

            def make(i):
                def hook(_, __, out):
                    sums[i] += output_of(out)[:, -1].sum(0)

                return hook

            with Hooks(self.layers, make):
                self.model.model(ids, attention_mask=mask, position_ids=positions, use_cache=False)
        vectors = sums / len(task["examples"])
        # Validation: what queries share is computed once, then one row for each layer.
        n = len(self.layers)
        right = torch.zeros(n)
        for first in range(0, len(task["validation"]), 10):
            queries = task["validation"][first : first + 10]
            ids, mask, positions = self.padded([q["tokens"] for q in queries])
            cache = self.model.model(
                ids[:, :-1], attention_mask=mask[:, :-1], position_ids=positions[:, :-1], use_cache=True
            ).past_key_values
            cache.batch_repeat_interleave(n)

            def rows(x):
                return x.repeat_interleave(n, 0)

            logits = self.patched_rows(cache, rows(ids[:, -1:]), vectors, rows(mask), rows(positions[:, -1:]))
            said = logits.argmax(-1).view(len(queries), n)
            right += (said == torch.tensor([[q["answer"]] for q in queries])).sum(0)
        layer = int(right.argmax())
        # Test: all queries in batches, patched at the best layer, until every row has stopped.
        answers = []
        for first in range(0, len(task["test"]), 50):
            ids, mask, positions = self.padded(task["test"][first : first + 50])

            def hook(_, __, out):
                output_of(out)[:, -1] = vectors[layer]

            handle = self.layers[layer].register_forward_hook(hook)
            out = self.model(ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1)
            handle.remove()
            answers.extend(self.decode(out, mask, positions[:, -1:], task["stop"], task["maxTokens"]))
        return [vectors, layer, answers]

    def decode(self, out, mask, positions, stop, max_tokens):
        tokens = out.logits[:, -1].argmax(-1, keepdim=True)
        said = [tokens]
        stops = torch.tensor(stop)
        done = torch.isin(tokens[:, 0], stops)
        while len(said) < max_tokens and not done.all():
            mask = torch.cat([mask, mask.new_ones(mask.shape[0], 1)], 1)
            positions = positions + 1
            out = self.model(
                tokens, attention_mask=mask, position_ids=positions, past_key_values=out.past_key_values, use_cache=True
            )
            tokens = out.logits[:, -1].argmax(-1, keepdim=True)
            said.append(tokens)
            done |= torch.isin(tokens[:, 0], stops)
        return torch.cat(said, 1).tolist()

    def steered(self):
        def hook(_, __, out):
            output_of(out)[:, -1] += spec["strength"] * self.vector

        handle = self.layers[len(self.layers) // 2].register_forward_hook(hook)
        cache = DynamicCache(config=self.model.config)
        ids = torch.tensor([spec["steered"]])
        for _ in range(spec["newTokens"]):
            logits = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            ids = logits[:, -1].argmax(-1, keepdim=True)
        handle.remove()


class Naive(Torch):
    def one(self, ids, layer, vector):
        def hook(_, __, out):
            output_of(out)[:, -1] = vector

        handle = self.layers[layer].register_forward_hook(hook)
        out = self.model(torch.tensor([ids]), use_cache=True, logits_to_keep=1)
        handle.remove()
        return out

    def sweep(self):
        for layer in range(len(self.layers)):
            self.one(spec["prompt"], layer, self.vector).logits.topk(5)

    def evaluation(self):
        task = spec["evaluation"]
        sums = torch.zeros(len(self.layers), self.width)
        for ids in task["examples"]:
            out = self.model(torch.tensor([ids]), output_hidden_states=True, use_cache=False, logits_to_keep=1)
            sums += torch.stack([h[0, -1] for h in out.hidden_states[1:]])
        vectors = sums / len(task["examples"])
        right = [0] * len(self.layers)
        for query in task["validation"]:
            for layer in range(len(self.layers)):
                said = int(self.one(query["tokens"], layer, vectors[layer]).logits[0, -1].argmax())
                right[layer] += said == query["answer"]
        layer = max(range(len(right)), key=right.__getitem__)
        for ids in task["test"]:
            mask = torch.ones(1, len(ids), dtype=torch.long)
            out = self.one(ids, layer, vectors[layer])
            self.decode(out, mask, torch.tensor([[len(ids) - 1]]), task["stop"], task["maxTokens"])


class Nnsight(Torch):
    def __init__(self):
        import nnsight
        from transformers import AutoTokenizer  # noqa: F401

        super().__init__()
        self.traced = nnsight.NNsight(self.model)

    def capture(self, select):
        saved = []
        with self.traced.trace(self.prompt, use_cache=False, logits_to_keep=1):
            for layer in self.traced.model.layers:
                saved.append(select(output_of(layer.output)).save())
        return torch.stack(saved)

    def capture_last(self):
        return self.capture(lambda h: h[0, -1])

    def capture_all(self):
        return self.capture(lambda h: h[0])


class TransformerLens(Torch):
    def __init__(self):
        from tokenizers import Tokenizer, models
        from transformer_lens.model_bridge import TransformerBridge
        from transformers import PreTrainedTokenizerFast

        super().__init__()
        # It is only ever given token ids, but does not load without a tokenizer.
        words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="a")
        self.bridge = TransformerBridge.boot_transformers(FOLDER, hf_model=self.model, tokenizer=tokenizer)

    def capture(self, select):
        saved = {}

        def keep(value, hook):
            saved[hook.name] = select(value).clone()

        names = [f"blocks.{i}.hook_out" for i in range(len(self.layers))]
        self.bridge.run_with_hooks(self.prompt, fwd_hooks=[(name, keep) for name in names])
        return torch.stack([saved[name] for name in names])

    def capture_last(self):
        return self.capture(lambda h: h[0, -1])

    def capture_all(self):
        return self.capture(lambda h: h[0])

    def map(self):
        from transformer_lens import patching

        task = spec["map"]
        right, wrong = task["answers"]
        _, clean = self.bridge.run_with_cache(torch.tensor([task["from"]]))

        def metric(logits):
            return logits[0, -1, right] - logits[0, -1, wrong]

        return patching.get_act_patch_resid_pre(self.bridge, torch.tensor([task["into"]]), clean, metric)


peer = {"torch": Torch, "naive": Naive, "nnsight": Nnsight, "transformer-lens": TransformerLens}[KIND]()
versions = {"torch": torch.__version__}
for name in ("transformers", "nnsight", "transformer_lens"):
    if name in sys.modules:
        from importlib.metadata import version

        versions[name] = version(name.replace("_", "-"))
print(json.dumps({"ready": True, "versions": versions}), flush=True)
for line in sys.stdin:
    order = json.loads(line)
    torch.set_num_threads(order.get("threads", int(THREADS)))
    work = getattr(peer, order["work"])
    clock, processor = time.perf_counter(), time.process_time()
    result = work(order["size"]) if "size" in order else work()
    answer = {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}
    if order.get("file"):
        result = result[0] if isinstance(result, list) else result
        result.contiguous().numpy().tofile(order["file"])
    print(json.dumps(answer), flush=True)
