"""Stages `trunk` and `grid`: what the frozen blocks, and later the whole encoder, make of all pictures, kept on disk.

A copy of the training pictures is one augmentation of each; `plain` are all pictures without any.
"""

import torch

from files import chunks
from teacher import Teacher
from vision import FROZEN, pretrained

CHUNK, BATCH = 128, 16
WATCHED = ("validation", "held-style", "held-photo", "held-entity")


def in_batches(compute, inputs):
    with torch.inference_mode():
        return torch.cat([compute(inputs[i : i + BATCH]) for i in range(0, len(inputs), BATCH)])


def trunk(pictures, onnx, folder, copy, log):
    """States after the frozen blocks of one augmented copy of the training pictures (a number) or of WATCHED ('plain')."""
    encoder = None
    indices = pictures.of(*WATCHED) if copy == "plain" else pictures.of("train")

    def compute(part, begin):
        nonlocal encoder
        if encoder is None:
            encoder = pretrained(onnx, FROZEN).eval()
        if copy == "plain":
            images = pictures.plain(part)
        else:
            images = pictures.augmented(part, torch.Generator().manual_seed(1000 * copy + begin))
        log(f"trunk {copy} {begin} of {len(indices)}")
        return in_batches(lambda batch: encoder.run(encoder.embed(batch)), images)

    return indices, chunks(folder / f"trunk-{copy}", indices, CHUNK, compute)


def taught(pictures, path, folder, log):
    """The teacher's features of every training picture, without augmentation."""
    teacher = None
    indices = pictures.of("train")

    def compute(part, begin):
        nonlocal teacher
        teacher = teacher or Teacher(path)
        log(f"teacher {begin} of {len(indices)}")
        return in_batches(teacher.features, pictures.stored(part))

    return chunks(folder / "teacher-features", indices, CHUNK, compute)


def grid(encoder, states, folder, copy, log):
    """The finished grid of states that `trunk` kept."""

    def compute(part, begin):
        log(f"grid {copy} {begin} of {len(states)}")
        inputs = torch.from_numpy(states[part.start : part.stop])
        return in_batches(lambda batch: encoder.finish(encoder.run(batch.float(), FROZEN)), inputs)

    return chunks(folder / f"grid-{copy}", range(len(states)), 8 * CHUNK, compute)
