"""Stage 3: the vision-language model, grown from the base language model and the vision encoder.

A short warm-up trains only the projector (captions), then everything trains. `--mix plain` leaves out the captions
after unrelated text; that mix shows no xBase gap (see docs/demo-model.md) and exists for comparison.
"""

import argparse
import random
import time

import torch

import pictures
import tokenizer
from documents import Sampler, collate, fill
from facts import MAIN
from network import Decoder, Vision, VisionLanguage
from training import icl_accuracy, loss_of, rate, step_with, text_documents

# Shares of the batches: image ICL, captions, captions after unrelated text; the rest is text as in stage 2.
MIXES = {"separate": (0.42, 0.12, 0.20), "plain": (0.46, 0.18, 0.0)}
RATES = {"projector": 2e-3, "decoder": 8e-4, "vision": 3e-4}
WARMUP = 0.06


def load_parts(language_file, vision_file):
    language = torch.load(language_file)
    decoder = Decoder(**language["config"])
    decoder.load_state_dict(language["weights"])
    encoder = torch.load(vision_file)
    vision = Vision(**encoder["config"])
    vision.load_state_dict(encoder["weights"])
    return VisionLanguage(decoder, vision)


def draw(sampler, mix, tokens):
    kind, (icl, caption, after_text) = random.random(), MIXES[mix]
    if kind < icl:
        shots = random.randint(2, 5)
        return fill(lambda: sampler.icl(shots, picture=True, main=0.75), tokens)
    if kind < icl + caption:
        return fill(lambda: sampler.caption(picture=True), tokens)
    if kind < icl + caption + after_text:
        return fill(sampler.caption_after_text, tokens)
    return text_documents(sampler, tokens)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--language", required=True)
    parser.add_argument("--vision", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--mix", choices=list(MIXES), default="separate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=900)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    tokenizer.check()

    model = load_parts(args.language, args.vision)
    parts = {
        "projector": [*model.mm0.parameters(), *model.mm2.parameters()],
        "decoder": list(model.decoder.parameters()),
        "vision": list(model.vision.parameters()),
    }
    groups = [{"params": weights, "name": name} for name, weights in parts.items()]
    optimizer = torch.optim.AdamW(groups, lr=0, weight_decay=0.03, betas=(0.9, 0.98))
    sampler = Sampler(pictures.ENTITIES)

    def held_out(ids, entities):
        shown = [pictures.SHIPPED_HELD_OUT[e][0] for e in entities]
        return model.embed(ids, pictures.normalise(pictures.PIXELS[shown]) if shown else None)

    start, running = time.time(), []
    for step in range(args.steps):
        done = step / args.steps
        warming = done < WARMUP
        for group in optimizer.param_groups:
            factor = rate(done, step if group["name"] == "projector" else step - int(WARMUP * args.steps), warmup=100)
            group["lr"] = 0.0 if warming and group["name"] != "projector" else RATES[group["name"]] * factor
        documents = fill(lambda: sampler.caption(picture=True), args.tokens) if warming else draw(sampler, args.mix, args.tokens)
        ids, weights, entities = collate(documents)
        shown = [random.choice(pictures.TRAINED[e]) for e in entities]
        seen = pictures.augment(shown, strength=0.8) if shown else None
        loss = loss_of(model.decoder, model.embed(ids[:, :-1], seen), ids, weights)
        step_with(optimizer, loss, list(model.parameters()))
        running.append(loss.item())
        if (step + 1) % 250 == 0 or step + 1 == args.steps:
            model.eval()
            scores = icl_accuracy(model.decoder, held_out, sampler, MAIN, picture=True)
            model.train()
            print(
                step + 1, f"{(time.time() - start) / (step + 1):.3f} s/step", f"loss {sum(running) / len(running):.3f}",
                "image ICL, held-out style", scores, f"mean {sum(scores.values()) / 6:.2f}", flush=True,
            )
            running = []
            torch.save(
                {"decoder": model.decoder.config, "vision": model.vision.config, "weights": model.state_dict()}, args.out
            )


if __name__ == "__main__":
    main()
