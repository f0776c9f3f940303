"""Stage 1: the vision encoder, as a classifier over all pictured entities, on the trained styles only.

An exponential moving average of the weights is what gets saved. The held-out style is only measured here.
"""

import argparse
import copy
import math
import random
import time

import torch
import torch.nn.functional as F
from torch import nn

import pictures
from network import Vision

BATCH = 96
COSINE = 0.7  # the run stops at this share of the cosine, at a fifth of the peak rate: the average is as good by then


def accuracy(vision, head, groups):
    """Top-1 per domain over the first drawing of each entity."""
    ids = torch.tensor([index for group in groups.values() for index in group])
    with torch.no_grad():
        guess = torch.cat(
            [head(vision(pictures.normalise(pictures.PIXELS[part])).mean(1)).argmax(-1) for part in ids.split(256)]
        )
    right = (guess == pictures.LABELS[ids]).float()
    domains = [pictures.META[i]["domain"] for i in ids.tolist()]
    return {
        domain: round(right[torch.tensor([d == domain for d in domains])].mean().item(), 3)
        for domain in ("country", "animal", "food")
    }


def pick(groups, names):
    """One picture index: an entity, then one of its drawings; flags are the easy half, so they come less often."""
    return random.choice(groups[random.choice(names["country" if random.random() < 0.36 else "other"])])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    random.seed(args.seed)

    vision = Vision(width=args.width, layers=args.layers, heads=args.width // 64, hidden=4 * args.width)
    head = nn.Linear(args.width, len(pictures.ENTITIES))
    average, average_head = copy.deepcopy(vision), copy.deepcopy(head)
    weights = [*vision.parameters(), *head.parameters()]
    averages = [*average.parameters(), *average_head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=0, weight_decay=0.1)
    names = {
        "country": [e for e in pictures.ENTITIES if pictures.DOMAIN[e] == "country"],
        "other": [e for e in pictures.ENTITIES if pictures.DOMAIN[e] != "country"],
    }
    print("parameters", sum(w.numel() for w in vision.parameters()), flush=True)
    start = time.time()
    running = []
    for step in range(args.steps):
        done = COSINE * step / args.steps
        for group in optimizer.param_groups:
            group["lr"] = 1.2e-3 * min(1, (step + 1) / 200) * (0.5 * (1 + math.cos(math.pi * done)) + 0.01)
        ids = torch.tensor([pick(pictures.TRAINED, names) for _ in range(BATCH)])
        x, label = pictures.augment(ids), pictures.LABELS[ids]
        mix, other = 1.0, torch.arange(BATCH)
        if random.random() < 0.6:
            mix, other = random.betavariate(0.4, 0.4), torch.randperm(BATCH)
            x = mix * x + (1 - mix) * x[other]
        scores = head(vision(x).mean(1))
        loss = mix * F.cross_entropy(scores, label, label_smoothing=0.1)
        loss = loss + (1 - mix) * F.cross_entropy(scores, label[other], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        running.append(loss.item())
        with torch.no_grad():
            for slow, fast in zip(averages, weights):
                slow.lerp_(fast, max(0.004, 1 / (step + 1)))
        if (step + 1) % 500 == 0 or step + 1 == args.steps:
            print(
                step + 1,
                f"{(time.time() - start) / (step + 1):.3f} s/step",
                f"loss {sum(running) / len(running):.3f}",
                "trained styles", accuracy(average, average_head, pictures.SHIPPED_TRAINED),
                "held-out style", accuracy(average, average_head, pictures.SHIPPED_HELD_OUT),
                flush=True,
            )
            running = []
            torch.save({"config": average.config, "weights": average.state_dict()}, args.out)


if __name__ == "__main__":
    main()
