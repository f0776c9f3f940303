"""Writes tests/fixtures/directions.json: directions between two sets of points, by numpy. `python directions.py`"""

import json
from pathlib import Path

import numpy as np

rng = np.random.default_rng(7)
positive = rng.standard_normal((6, 10)).astype(np.float32) + np.linspace(0, 2, 10, dtype=np.float32)
negative = rng.standard_normal((6, 10)).astype(np.float32)
difference = positive.astype(np.float64) - negative.astype(np.float64)
axis = np.linalg.svd(difference)[2][0]
axis *= np.sign(np.sign(difference @ axis).sum())
values = {
    "positive": positive.tolist(),
    "negative": negative.tolist(),
    "mean": (positive.astype(np.float64).mean(0) - negative.astype(np.float64).mean(0)).tolist(),
    "pca": axis.tolist(),
}
Path(__file__).parents[1].joinpath("fixtures/directions.json").write_text(json.dumps(values, indent=1) + "\n")
