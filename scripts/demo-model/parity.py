"""Reference values for parity.mjs: token ids of every string of the demo, logits and patched logits of a few prompts."""

import argparse
import json
import random
from pathlib import Path

import torch

import pictures
from checkpoints import load_vlm
from documents import Picture, collate, examples, question, start
from facts import FACT, HELD_OUT_WORDINGS, KEYS, MAIN, TASKS, WORDINGS
from tokenizer import BOS, encode


def text_cases():
    texts = [f"Q:{x}\nA:{y}\n\nQ:{x}\nA:" for task in FACT for x, y in FACT[task].items()]
    wordings = [w for group in WORDINGS.values() for w in group] + list(HELD_OUT_WORDINGS.values())
    texts += [f"{w}:" for w in wordings] + [f"{w}:\nQ:{x}\nA:" for w in wordings for x in ("Peru", "Costa Rica", "orca")]
    texts += [f"{x}\n{key}:" for key in KEYS.values() for x in ("Peru", "Saint Vincent and the Grenadines", "kiwi")]
    texts += ["Español, naïve café — “quotes” 1234 tabs\tand\r\nlines  two spaces 日本 🦁", "What is on top of the meat?"]
    return list(dict.fromkeys(texts))


def parts(document):
    """A document as xpatch prompt parts: token runs and pictures."""
    result = []
    for token, _ in document:
        if isinstance(token, Picture):
            result.append({"picture": pictures.SHIPPED_HELD_OUT[token.entity][0]})
        elif result and "tokens" in result[-1]:
            result[-1]["tokens"].append(token)
        else:
            result.append({"tokens": [token]})
    return result


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, nargs="+", help="checkpoints, averaged")
    parser.add_argument("--out", type=Path, default=pictures.CACHE / "parity.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load_vlm(args.model).eval()
    rng = random.Random(3)
    layer = 1

    def run(document, patch=None):
        ids, _, entities = collate([document])
        shown = [pictures.SHIPPED_HELD_OUT[e][0] for e in entities]
        x = model.embed(ids, model.picture_rows(pictures.normalise(pictures.PIXELS[shown])) if shown else None)
        last = torch.tensor([ids.shape[1] - 1])
        hidden, states = model.decoder(x, patch=None if patch is None else (layer, last, patch), collect=last)
        return model.decoder.logits(hidden[0, -1]), states[:, 0]

    cases = []
    for task in MAIN:
        items = rng.sample([item for item in TASKS[task] if item[0] in pictures.ENTITY_INDEX], 5)
        (name, _), shown = items[4], items[:4]
        donor = start(examples(shown) + question(rng.choice(TASKS[task])[0], False))
        _, states = run(donor)
        bare = start(question(name, True))
        documents = {
            "text": start(examples(shown) + question(name, False)),
            "bare picture": bare,
            "pictures": start(examples(shown, picture=True) + question(name, True)),
            "text then picture": start(examples(shown) + question(name, True)),
        }
        for kind, document in documents.items():
            cases.append({"task": task, "kind": kind, "parts": parts(document), "logits": run(document)[0].tolist()})
        cases.append(
            {
                "task": task, "kind": "patched", "parts": parts(bare), "donor": parts(donor), "layer": layer,
                "logits": run(bare, states[layer : layer + 1])[0].tolist(),
            }
        )
    texts = [{"text": text, "tokens": [BOS, *encode(text)]} for text in text_cases()]
    used = sorted({part["picture"] for case in cases for part in case["parts"] if "picture" in part})
    pixels = {i: pictures.PIXELS[i].permute(1, 2, 0).flatten().tolist() for i in used}
    args.out.write_text(json.dumps({"texts": texts, "cases": cases, "pixels": pixels}))
    print(len(texts), "strings,", len(cases), "prompts ->", args.out)


if __name__ == "__main__":
    main()
