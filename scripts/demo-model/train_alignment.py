"""Stage 3: the projector learns to hand the decoder a picture as the name of what it shows.

Row i of a picture is trained towards the base model's embedding of the i-th token of the entity's name, the rows after
the name towards the embedding of the padding token, which no text contains. The decoder itself takes no part. The next
stage trains everything together, from rows that already mean something: without this stage it takes several times as
many steps until pictures are recognised.
"""

import argparse
import math
import random
import time

import torch
import torch.nn.functional as F
from torch import nn

import pictures
from documents import ROWS
from network import Decoder, Vision, VisionLanguage
from tokenizer import PAD, encode
from train_vision import BATCH, pick

SHARPNESS = 20.0  # factor on cosines before the softmax


def load_parts(language_file, vision_file):
    language = torch.load(language_file)
    decoder = Decoder(**language["config"])
    decoder.load_state_dict(language["weights"])
    encoder = torch.load(vision_file)
    vision = Vision(**encoder["config"])
    vision.load_state_dict(encoder["weights"])
    return VisionLanguage(decoder, vision)


def targets():
    """Token of each row of each entity, [entities, ROWS]."""
    rows = [(encode(entity) + [PAD] * ROWS)[:ROWS] for entity in pictures.ENTITIES]
    return torch.tensor(rows)


def alignment_loss(rows, target, embeddings):
    """Rows [B, ROWS, width] against token ids [B, ROWS]: which token each row is nearest to, and how far it is."""
    cosines = F.normalize(rows, dim=-1) @ F.normalize(embeddings, dim=-1).T
    wanted = embeddings[target]
    return F.cross_entropy(SHARPNESS * cosines.flatten(0, 1), target.flatten()) + F.mse_loss(rows, wanted) / wanted.pow(2).mean()


@torch.no_grad()
def spelled(model, table, wanted, groups):
    """Share of entities whose every row is nearest to its token, by domain."""
    ids = torch.tensor([group[0] for group in groups.values()])
    rows = torch.cat([model.picture_rows(pictures.normalise(pictures.PIXELS[part])) for part in ids.split(256)])
    right = ((F.normalize(rows, dim=-1) @ table.T).argmax(-1) == wanted).all(1).float()
    domains = [pictures.DOMAIN[entity] for entity in groups]
    return {
        domain: round(right[torch.tensor([d == domain for d in domains])].mean().item(), 2)
        for domain in ("country", "animal", "food")
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--language", required=True)
    parser.add_argument("--vision", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    random.seed(args.seed)

    model = load_parts(args.language, args.vision)
    embeddings = model.decoder.token_embd.weight.detach()
    table, wanted = F.normalize(embeddings, dim=-1), targets()
    projector, vision = [*model.mm0.parameters(), *model.mm2.parameters()], list(model.vision.parameters())
    optimizer = torch.optim.AdamW([{"params": projector, "base": 4e-3}, {"params": vision, "base": 8e-4}], lr=0, weight_decay=0.03)
    names = {
        "country": [e for e in pictures.ENTITIES if pictures.DOMAIN[e] == "country"],
        "other": [e for e in pictures.ENTITIES if pictures.DOMAIN[e] != "country"],
    }
    start, running = time.time(), []
    for step in range(args.steps):
        done = step / args.steps
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * min(1, (step + 1) / 50) * (0.5 * (1 + math.cos(math.pi * done)) + 0.02)
        ids = torch.tensor([pick(pictures.TRAINED, names) for _ in range(BATCH)])
        target = wanted[pictures.LABELS[ids]]
        loss = alignment_loss(model.picture_rows(pictures.augment(ids)), target, embeddings)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(projector + vision, 1.0)
        optimizer.step()
        running.append(loss.item())
        if (step + 1) % 150 == 0 or step + 1 == args.steps:
            print(
                step + 1, f"{(time.time() - start) / (step + 1):.3f} s/step", f"loss {sum(running) / len(running):.3f}",
                "spelled, trained styles", spelled(model, table, wanted, pictures.SHIPPED_TRAINED),
                "held-out style", spelled(model, table, wanted, pictures.SHIPPED_HELD_OUT), flush=True,
            )
            running = []
            torch.save({"decoder": model.decoder.config, "vision": model.vision.config, "weights": model.state_dict()}, args.out)


if __name__ == "__main__":
    main()
