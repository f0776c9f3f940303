"""A quick check of the trained model in PyTorch, with the protocol of the paper; the shipped table is xpatch's own.

Per task and seed: 30 validation and up to 100 test items that have a picture. A task vector is the mean over the 30
five-shot prompts built from the validation items (each ends with its item as the query), read at the last ':' of the
prompt, and replaces the output of one block at the last token of the bare query. The layer is the one with the best
validation accuracy averaged over tasks and seeds, per condition.
"""

import argparse
import json
import random

import torch

import pictures
from checkpoints import load_vlm
from documents import NEWLINE, Picture, collate, examples, plain, question, start
from facts import HELD_OUT_WORDINGS, MAIN, TASKS, WORDINGS
from network import Decoder
from tokenizer import encode

SHOTS = 5


class Runner:
    def __init__(self, model, base, style):
        self.model, self.base = model, base
        self.shown = pictures.SHIPPED_HELD_OUT if style == "held-out" else pictures.SHIPPED_TRAINED

    @torch.no_grad()
    def run(self, prompts, answers=None, patch=None, base=False):
        """-> (strict, lenient) hits per prompt when answers are given, else states [layers, prompts, width].

        Strict: all answer tokens and the line end after them, each the argmax given the ones before (= greedy).
        Lenient: the first answer token.
        """
        wanted = [encode(a) + NEWLINE for a in answers] if answers else [[] for _ in prompts]
        ids, _, entities = collate([p + plain(w) for p, w in zip(prompts, wanted)])
        lengths = torch.tensor([sum(16 if isinstance(t, Picture) else 1 for t, _ in p) for p in prompts])
        decoder = self.base if base else self.model.decoder
        if entities:
            shown = torch.tensor([self.shown[e][0] for e in entities])
            embeddings = self.model.embed(ids, self.model.picture_rows(pictures.normalise(pictures.PIXELS[shown])))
        else:
            embeddings = decoder.token_embd(ids.clamp(min=0))
        place = None if patch is None else (patch[0], lengths - 1, patch[1].expand(len(prompts), -1))
        hidden, states = decoder(embeddings, patch=place, collect=lengths - 1)
        if answers is None:
            return states
        guess = decoder.logits(hidden).argmax(-1)
        hits = []
        for row, (length, want) in enumerate(zip(lengths.tolist(), wanted)):
            said = guess[row, length - 1 : length - 1 + len(want)].tolist()
            hits.append((said == want, said[0] == want[0]))
        return torch.tensor(hits).float().mean(0)


def shots(pool, item, count, rng, picture):
    return examples(rng.sample([other for other in pool if other != item], count), picture)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, nargs="+", help="checkpoints, averaged")
    parser.add_argument("--language", required=True)
    parser.add_argument("--style", choices=["held-out", "trained"], default="held-out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load_vlm(args.model).eval()
    language = torch.load(args.language)
    base = Decoder(**language["config"]).eval()
    base.load_state_dict(language["weights"])
    runner = Runner(model, base, args.style)
    layers = len(model.decoder.blocks)

    splits, vectors, plain_rows = {}, {}, {}
    for seed in range(1, args.seeds + 1):
        for task in MAIN:
            rng = random.Random(f"{seed}{task}")
            items = [item for item in TASKS[task] if item[0] in runner.shown]
            rng.shuffle(items)
            validation, test = items[:30], items[30:130]
            splits[seed, task] = validation, test

            def query(item, picture=True):
                return question(item[0], picture)

            def prompts(picture, pool):
                # Five examples as in the paper: four whole pairs and the fifth as the query that is read.
                return [start(shots(pool, i, SHOTS - 1, rng, picture) + query(i, picture)) for i in pool]

            def instruction(text):
                return [start(plain(encode(text + ":")))]

            vectors[seed, task] = {
                "Image Patch": runner.run(prompts(True, validation)).mean(1),
                "Text Patch": runner.run(prompts(False, validation)).mean(1),
                "Instruction Patch": runner.run(instruction(WORDINGS[task][0]))[:, 0],
                "Instruction Patch, held-out wording": runner.run(instruction(HELD_OUT_WORDINGS[task]))[:, 0],
                "LLM Text Patch": runner.run(prompts(False, validation), base=True).mean(1),
                "LLM Instruction Patch": runner.run(instruction(WORDINGS[task][0]), base=True)[:, 0],
            }
            answers = [answer for _, answer in test]
            bare = [start(query(i)) for i in test]
            rows = {
                "No Context": runner.run(bare, answers),
                "Image Prompt": runner.run([start(shots(test, i, SHOTS, rng, True) + query(i)) for i in test], answers),
                "Text Prompt (xBase)": runner.run([start(shots(test, i, SHOTS, rng, False) + query(i)) for i in test], answers),
                "Text Prompt, text query": runner.run(
                    [start(shots(test, i, SHOTS, rng, False) + query(i, False)) for i in test], answers
                ),
                "Instruction Prompt": runner.run(
                    [start(plain(encode(WORDINGS[task][0] + ":\n")) + query(i)) for i in test], answers
                ),
            }
            plain_rows[seed, task] = rows

    table = {name: {t: [plain_rows[s, t][name] for s in range(1, args.seeds + 1)] for t in MAIN} for name in plain_rows[1, MAIN[0]]}
    chosen, sweeps = {}, {}
    conditions = [*vectors[1, MAIN[0]], "Text Patch, text query", "Random vector", "Wrong task"]
    for condition in conditions:
        source = "Text Patch" if condition in ("Text Patch, text query", "Random vector", "Wrong task") else condition
        picture = condition != "Text Patch, text query"

        def vector(seed, task, layer):
            if condition == "Wrong task":
                return vectors[seed, MAIN[(MAIN.index(task) + 1) % 6]][source][layer]
            z = vectors[seed, task][source][layer]
            if condition == "Random vector":
                noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(1000 * seed + MAIN.index(task)))
                return noise * z.norm() / noise.norm()
            return z

        def score(items, seed, task, layer):
            prompts = [start(question(name, picture)) for name, _ in items]
            return runner.run(prompts, [answer for _, answer in items], patch=(layer, vector(seed, task, layer)))

        if condition in ("Random vector", "Wrong task"):
            layer = chosen["Text Patch"]
        else:
            sweeps[condition] = [
                sum(score(splits[key][0], *key, layer)[0].item() for key in splits) / len(splits) for layer in range(layers)
            ]
            layer = max(range(layers), key=lambda l: (sweeps[condition][l], -l))
        chosen[condition] = layer
        table[condition] = {t: [score(splits[s, t][1], s, t, layer) for s in range(1, args.seeds + 1)] for t in MAIN}

    print("style:", args.style, "| strict accuracy, mean of", args.seeds, "seeds; last column: first token only")
    print(f"{'condition':38}", *(f"{t:>9}" for t in MAIN), "     mean   first  layer")
    result = {}
    for name, columns in table.items():
        means = {t: torch.stack(columns[t]).mean(0).tolist() for t in MAIN}
        strict, lenient = (sum(m[k] for m in means.values()) / 6 for k in (0, 1))
        result[name] = {"tasks": {t: m[0] for t, m in means.items()}, "mean": strict, "first": lenient, "layer": chosen.get(name)}
        print(f"{name:38}", *(f"{means[t][0]:9.3f}" for t in MAIN), f"{strict:9.3f} {lenient:7.3f}  {chosen.get(name, '')}")
    print("validation sweeps:")
    for name, values in sweeps.items():
        print(f"{name:38}", *(f"{v:.2f}" for v in values))
    print("test items a task:", {t: len(splits[1, t][1]) for t in MAIN})
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"table": result, "sweeps": sweeps, "style": args.style}, file, indent=1)


if __name__ == "__main__":
    main()
