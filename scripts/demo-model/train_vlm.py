"""Stage 4: the vision-language model: decoder, encoder and projector together, from the aligned parts of stage 3.

`--mix plain` leaves out the captions after unrelated text; that mix shows no xBase gap (see docs/demo-model.md) and
exists for comparison.
"""

import argparse
import random
import time

import torch

import pictures
import tokenizer
from checkpoints import load_vlm
from documents import Sampler, collate, fill
from facts import MAIN
from train_alignment import alignment_loss, targets
from training import icl_accuracy, loss_of, rate, step_with, text_documents

# Shares of the batches: image ICL, captions, captions after unrelated text, completions, questions after a picture; the
# rest is text as in stage 2.
MIXES = {
    "first": (0.42, 0.12, 0.20, 0.0, 0.0),
    "second": (0.42, 0.09, 0.22, 0.05, 0.0),
    "third": (0.32, 0.07, 0.22, 0.04, 0.20),
    "separate": (0.36, 0.04, 0.24, 0.04, 0.20),
    "plain": (0.40, 0.15, 0.0, 0.04, 0.20),
}
RATES = {"projector": 1e-3, "decoder": 8e-4, "vision": 4e-4}
ALIGNMENT = 0.25  # weight of stage 3's loss, which goes on beside the language loss


def draw(sampler, mix, tokens):
    kind, (icl, caption, after_text, completion, asked) = random.random(), MIXES[mix]
    if kind < icl:
        shots = random.randint(2, 5)
        return fill(lambda: sampler.icl(shots, picture=True, main=0.75), tokens)
    if kind < icl + caption:
        return fill(lambda: sampler.caption(picture=True), tokens)
    if kind < icl + caption + after_text:
        return fill(sampler.caption_after_text, tokens)
    if kind < icl + caption + after_text + completion:
        return fill(sampler.completion, tokens)
    if kind < icl + caption + after_text + completion + asked:
        return fill(sampler.asked, tokens)
    return text_documents(sampler, tokens)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--aligned", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--mix", choices=list(MIXES), default="separate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=900, help="positions a step")
    parser.add_argument("--schedule", type=int, help="steps of the rate's whole schedule; defaults to --steps")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    tokenizer.check()

    model = load_vlm([args.aligned])
    parts = {
        "projector": [*model.mm0.parameters(), *model.mm2.parameters()],
        "decoder": list(model.decoder.parameters()),
        "vision": list(model.vision.parameters()),
    }
    groups = [{"params": weights, "name": name} for name, weights in parts.items()]
    optimizer = torch.optim.AdamW(groups, lr=0, weight_decay=0.03, betas=(0.9, 0.98))
    sampler, wanted = Sampler(pictures.ENTITIES), targets()

    def held_out(ids, entities):
        shown = [pictures.SHIPPED_HELD_OUT[e][0] for e in entities]
        return model.embed(ids, model.picture_rows(pictures.normalise(pictures.PIXELS[shown])) if shown else None)

    start, running = time.time(), []
    for step in range(args.steps):
        done = step / (args.schedule or args.steps)
        for group in optimizer.param_groups:
            group["lr"] = RATES[group["name"]] * rate(done, step, warmup=100)
        ids, weights, entities = collate(draw(sampler, args.mix, args.tokens))
        shown = [random.choice(pictures.TRAINED[e]) for e in entities]
        rows = model.picture_rows(pictures.augment(shown, strength=0.8)) if shown else None
        loss = loss_of(model.decoder, model.embed(ids[:, :-1], rows), ids, weights)
        running.append(loss.item())
        if shown:
            target = wanted[pictures.LABELS[shown]]
            loss = loss + ALIGNMENT * alignment_loss(rows, target, model.decoder.token_embd.weight.detach())
        step_with(optimizer, loss, list(model.parameters()))
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
