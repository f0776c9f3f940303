"""Stage `vision`: the last blocks of the encoder learn to name pictures; a linear head on each of the 3 x 3 cells, thrown away later."""

import torch
import torch.nn.functional as F
from torch import nn

from stages import train
from teacher import FEATURES
from vision import FROZEN, MERGE, ROWS, WIDTH, merge, pretrained

BATCH = 32


class Namer(nn.Module):
    """[batch, ROWS, names]: like the projector it reads one cell at a time, so every cell must know the whole picture."""

    def __init__(self, names):
        super().__init__()
        self.cell = nn.Linear(MERGE * MERGE * WIDTH, names)

    def forward(self, grid):
        return self.cell(F.dropout(merge(grid), 0.3, self.training))


def upper(encoder):
    """The trained part as a module of its own, so that checkpoints hold nothing else."""
    return nn.ModuleDict({"blocks": encoder.blocks[FROZEN:], "norm": encoder.norm})


def encoder_of(onnx, checkpoint=None):
    encoder = pretrained(onnx)
    if checkpoint is not None:
        upper(encoder).load_state_dict(torch.load(checkpoint, weights_only=True)["upper"])
    return encoder.eval()


def train_vision(pictures, onnx, copies, plain, path, steps, log, taught=None):
    """`copies`: (indices, states) of every augmented copy; `plain`: the same of the pictures that are watched; `taught`:
    the teacher's features of the training pictures, whose directions a second head predicts."""
    encoder = pretrained(onnx)
    trained = upper(encoder)
    names = sorted({pictures.meta[i]["entity"] for i in copies[0][0]})
    number = {name: k for k, name in enumerate(names)}
    head = nn.ModuleDict({"names": Namer(len(names)), "teacher": nn.Linear(WIDTH, FEATURES)})
    labels = torch.tensor([number[pictures.meta[i]["entity"]] for i in copies[0][0]])
    optimizer = torch.optim.AdamW(
        [
            {"params": list(trained.parameters()), "lr": 1.5e-4, "weight_decay": 0.05},
            {"params": list(head.parameters()), "lr": 1e-3, "weight_decay": 0.05},
        ]
    )

    def grids(states):
        return encoder.finish(encoder.run(torch.from_numpy(states).float(), FROZEN))

    def loss(generator, _):
        copy = int(torch.randint(len(copies), (1,), generator=generator))
        rows = torch.randint(len(labels), (BATCH,), generator=generator)
        grid = grids(copies[copy][1][rows.numpy()])
        cells = head["names"](grid)
        each = F.cross_entropy(cells.flatten(0, 1), labels[rows].repeat_interleave(ROWS), label_smoothing=0.1)
        value = each + F.cross_entropy(cells.mean(1), labels[rows], label_smoothing=0.1)
        if taught is None:
            return value
        aim = torch.from_numpy(taught[rows.numpy()]).float()
        return value + 1 - F.cosine_similarity(head["teacher"](grid.mean(1)), aim).mean()

    def watch():
        right = {}
        for kind in ("validation", "held-style", "held-photo"):
            at = [k for k, i in enumerate(plain[0]) if pictures.kinds[i] == kind and pictures.meta[i]["entity"] in number]
            for begin in range(0, len(at), BATCH):
                part = at[begin : begin + BATCH]
                guess = head["names"](grids(plain[1][part])).mean(1).argmax(1)
                for k, g in zip(part, guess.tolist(), strict=True):
                    meta = pictures.meta[plain[0][k]]
                    right.setdefault((kind, meta["domain"]), []).append(number[meta["entity"]] == g)
        return ", ".join(f"{kind} {domain} {sum(r) / len(r):.2f}" for (kind, domain), r in sorted(right.items()))

    train(path, {"upper": trained, "head": head}, optimizer, steps, 1, loss, watch, log)
