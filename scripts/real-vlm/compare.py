"""Naming accuracy of mmproj files on the validation pictures, and how they differ: whether a quantised one is good enough to be shipped.

python compare.py --cache DIR [--language gemma] FIRST.gguf OTHER.gguf…
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from export import read
from language import Language
from parts import fetch
from pictures import Pictures
from train import LANGUAGES
from train_projector import DOMAINS

BATCH = 16


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--language", default="gemma", choices=LANGUAGES)
    parser.add_argument("--kind", default="validation", help="of the pictures, see splits.py")
    parser.add_argument("mmproj", type=Path, nargs="+")
    args = parser.parse_args()
    pictures = Pictures(args.cache)
    language = Language(fetch(args.cache, LANGUAGES[args.language]), args.cache / f"language-{args.language}")
    every = {domain: sorted({m["entity"] for m in pictures.meta if m["domain"] == domain}) for domain in DOMAINS}
    rows, right = [], []
    for path in args.mmproj:
        encoder, projector = read(path)
        made, named = [], []
        for domain in DOMAINS:
            at = [i for i in pictures.of(args.kind) if pictures.meta[i]["domain"] == domain]
            begun = len(named)
            for begin in range(0, len(at), BATCH):
                part = at[begin : begin + BATCH]
                with torch.inference_mode():
                    some = projector(encoder(pictures.plain(part)))
                made.append(some)
                named += language.named(some, [pictures.meta[i]["entity"] for i in part], every[domain])
            print(f"{path.name}: {domain} {np.mean(named[begun:]):.3f} (n {len(at)})", flush=True)
        rows.append(torch.cat(made))
        right.append(np.array(named, dtype=float))
        if len(rows) > 1:
            error = ((rows[-1] - rows[0]).norm() / rows[0].norm()).item()
            differences = right[-1] - right[0]
            draws = np.random.default_rng(1).choice(differences, (5000, len(differences))).mean(1)
            low, high = np.quantile(draws, [0.025, 0.975])
            print(
                f"{path.name} - {args.mmproj[0].name}: rows differ by {error:.3f} (relative RMS), "
                f"naming by {differences.mean():+.3f} ({low:+.3f} to {high:+.3f}, n {len(differences)})"
            )


if __name__ == "__main__":
    main()
