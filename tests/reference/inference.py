"""Makes tests/fixtures/statistics.json: permutation tests, bootstrap and Wilson intervals by scipy, Holm by statsmodels.

    python tests/reference/inference.py     # made with scipy 1.17.1, statsmodels 0.15.0, numpy 2.4.6

The item weights of a permutation test are computed here from the observations, by their definition.
"""
import json
from pathlib import Path

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

generator = np.random.default_rng(11)


def weights(rows):
    """What each (domain, item) adds to the mean over tasks of the mean difference over queries."""
    tasks = sorted({r["task"] for r in rows})
    n = {t: sum(r["task"] == t for r in rows) for t in tasks}
    out = {}
    for r in rows:
        key = (r["domain"], r["item"])
        out[key] = out.get(key, 0) + (r["first"] - r["second"]) / n[r["task"]] / len(tasks)
    return np.array(list(out.values()))


def permutation(rows, n_resamples=np.inf):
    w = weights(rows)
    result = stats.permutation_test(
        (w, np.zeros_like(w)), lambda a, b, axis: (a - b).sum(axis), vectorized=True, permutation_type="samples",
        n_resamples=n_resamples, alternative="two-sided", rng=np.random.default_rng(1), batch=10000)
    return {"difference": float(w.sum()), "p": float(result.pvalue), "items": len(w)}


def row(task, domain, seed, item, first, second):
    return {"task": task, "domain": domain, "seed": seed, "item": f"{item}", "first": first, "second": second}


def coin(p):
    return int(generator.random() < p)


single = [row("t", "t", 1, i, coin(0.8), coin(0.4)) for i in range(16)]
# Two domains, one of them with two tasks of unequal size, under one to three seeds: 16 items.
several = [row(task, domain, seed, i, coin(0.7), coin(0.35))
           for domain, task, items in (("a", "a1", 9), ("a", "a2", 6), ("b", "b1", 7))
           for i in range(items) for seed in range(1, 2 + i % 3)]
scores = [row("t", "t", seed, i, round(0.12 + generator.normal(), 4), round(generator.normal(), 4))
          for i in range(60) for seed in (1, 2)]
pairs = [row("t", "t", 1, i, int(i < 52), int(i < 37 or 52 <= i < 58)) for i in range(100)]

boot = [(int(generator.binomial(1 + i % 3, 0.6)), 1 + i % 3) for i in range(45)]
interval = stats.bootstrap(
    ([s for s, _ in boot], [c for _, c in boot]), lambda s, c, axis: s.sum(axis) / c.sum(axis), paired=True,
    vectorized=True, method="percentile", n_resamples=200000, batch=2000, rng=np.random.default_rng(2)).confidence_interval

families = [[0.01, 0.04, 0.03, 0.005], [0.2, 0.011, 0.9, 0.011, 0.6, 0.0001], [0.05], [1.0, 0.5, 0.0]]
proportions = [(0, 30), (1, 30), (17, 30), (30, 30), (433, 600), (3, 1800)]

out = Path(__file__).parent.parent / "fixtures" / "statistics.json"
out.write_text(json.dumps({
    "exact": [{"rows": rows, **permutation(rows)} for rows in (single, several)],
    # McNemar's exact test: 15 + 6 discordant pairs and a fair coin.
    "mcnemar": {"rows": pairs, "p": float(stats.binomtest(15, 21).pvalue)},
    "drawn": {"rows": scores, **permutation(scores, 1_000_000)},
    "bootstrap": {"sums": [s for s, _ in boot], "counts": [c for _, c in boot], "low": float(interval.low), "high": float(interval.high)},
    "holm": [{"p": p, "adjusted": multipletests(p, method="holm")[1].tolist()} for p in families],
    "wilson": [{"successes": k, "n": n, "low": float(ci.low), "high": float(ci.high)}
               for k, n in proportions for ci in [stats.binomtest(k, n).proportion_ci(method="wilson")]],
}) + "\n")
