"""Stages `warm` and `caption`: the projector, in front of a frozen language model.

warm     rows are drawn to the embeddings of the name's tokens: cheap, and a start
caption  besides, the language model's own loss on captions that hold the name, as in the first stage of LLaVA
"""

import random

import torch
import torch.nn.functional as F

from stages import train
from vision import ROWS, Projector

WARM_BATCH, BATCH, WATCHED = 64, 16, 40
DOMAINS = ("country", "animal", "food")


class Grids:
    """The encoder's output for all copies of the training pictures and, plain, for those that are watched."""

    def __init__(self, pictures, copies, plain):
        self.pictures, self.copies, self.plain = pictures, copies, plain
        self.names = [pictures.meta[i]["entity"] for i in copies[0][0]]

    def draw(self, count, generator):
        copy = int(torch.randint(len(self.copies), (1,), generator=generator))
        rows = torch.randint(len(self.names), (count,), generator=generator)
        return torch.from_numpy(self.copies[copy][1][rows.numpy()]).float(), [self.names[i] for i in rows.tolist()]

    def watched(self, kind, domain):
        """At most WATCHED pictures of a kind, always the same."""
        meta = self.pictures.meta
        at = [k for k, i in enumerate(self.plain[0]) if self.pictures.kinds[i] == kind and meta[i]["domain"] == domain]
        at = sorted(random.Random(kind + domain).sample(at, min(WATCHED, len(at))))
        return torch.from_numpy(self.plain[1][at]).float(), [meta[self.plain[0][k]]["entity"] for k in at]


def watcher(projector, language, grids):
    """Cosine of the rows to the embeddings of the name's tokens (the best token for each row), and how many are named rightly
    where all names of their kind can be chosen from."""
    every = {domain: sorted({m["entity"] for m in grids.pictures.meta if m["domain"] == domain}) for domain in DOMAINS}

    def watch():
        lines = []
        for kind in ("validation", "held-style", "held-photo", "held-entity"):
            for domain in DOMAINS:
                grid, names = grids.watched(kind, domain)
                if not names:
                    continue
                rows = projector(grid)
                cosines = [
                    F.cosine_similarity(rows[i][:, None], language.embed(language.tokens(" " + name))[None], dim=-1)
                    .max(1).values.mean().item()
                    for i, name in enumerate(names)
                ]  # fmt: skip
                right = language.named(rows, names, every[domain])
                lines.append(
                    f"{kind} {domain} (n {len(names)}) cosine {sum(cosines) / len(names):.2f} named {sum(right) / len(names):.2f}"
                )
        return "; ".join([*lines, f"norm {rows.norm(dim=-1).mean():.1f}"])

    return watch


def new_projector(language, grids, seed):
    """Random, with rows as long as the embeddings of tokens."""
    torch.manual_seed(seed)
    projector = Projector(language.width)
    wanted = language.name_rows(sorted(set(grids.names)), ROWS).norm(dim=-1).mean()
    with torch.no_grad():
        grid, _ = grids.draw(256, torch.Generator().manual_seed(0))
        projector.down.weight.mul_(wanted / projector(grid).norm(dim=-1).mean())
    return projector


def regression(language, grids):
    """Loss of rows that are to lie near the embeddings of the name's tokens, given the names."""
    names = sorted(set(grids.names))
    number = {name: k for k, name in enumerate(names)}
    wanted = language.name_rows(names, ROWS)
    length = wanted.norm(dim=-1).mean()
    directions = F.normalize(wanted, dim=-1)

    def loss(rows, drawn):
        label = torch.tensor([number[name] for name in drawn])
        pointing = F.normalize(rows, dim=-1)
        naming = F.cross_entropy(pointing.flatten(1) @ directions.flatten(1).T / ROWS / 0.1, label)
        return naming + 1 - (pointing * directions[label]).sum(-1).mean() + (rows.norm(dim=-1) / length - 1).square().mean()

    return loss


def warm(language, grids, folder, seed, steps, log, projector=None):
    """`projector`: one to go on with. Defaults to a new one."""
    projector = projector or new_projector(language, grids, seed)
    near = regression(language, grids)
    optimizer = torch.optim.AdamW(projector.parameters(), lr=1e-3, weight_decay=0.05)

    def loss(generator, _):
        grid, drawn = grids.draw(WARM_BATCH, generator)
        return near(projector(grid, dropout=0.1), drawn)

    watch = watcher(projector, language, grids)
    train(folder / f"warm-{seed}.pt", {"projector": projector}, optimizer, steps, seed, loss, watch, log)
    return projector


def caption(projector, language, grids, path, seed, mix, steps, log):
    """The loss of the warm start stays: captions alone teach rows to be said whatever is asked (LOG.md, checkpoint 2)."""
    optimizer = torch.optim.AdamW(projector.parameters(), lr=3e-4, weight_decay=0.01)
    vocabulary = language.vocabulary(sorted(set(grids.names)))
    near = regression(language, grids)

    def loss(generator, step):
        grid, names = grids.draw(BATCH, generator)
        rng = random.Random(f"{seed} {step}")
        rows = projector(grid, dropout=0.1)
        return language.caption_loss(rows, names, mix, rng, generator, vocabulary) + near(rows, names)

    marks = [round(steps * share) for share in (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)]
    watch = watcher(projector, language, grids)
    train(path, {"projector": projector}, optimizer, steps, seed, loss, watch, log, marks)
