"""Files that are complete or absent, whenever the process is killed."""

import os
from pathlib import Path

import numpy as np
import torch


def put(path, write):
    """Calls `write` with a path beside `path`, and renames what it wrote."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    with open(aside, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def save(path, value):
    put(path, lambda file: torch.save(value, file))


def chunks(folder, items, size, compute):
    """The rows that `compute(part)` gives for all parts of `items`, float16; every part is a file and made only once."""
    rows = []
    for begin in range(0, len(items), size):
        path = Path(folder) / f"{begin:05}.npy"
        if not path.exists():
            values = compute(items[begin : begin + size], begin).half().numpy()
            put(path, lambda file, values=values: np.save(file, values))
        rows.append(np.load(path))
    return np.concatenate(rows)
