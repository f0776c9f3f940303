"""From nothing to models/demo/: pictures, vision encoder, base language model, alignment, VLM, GGUF files.

    python scripts/demo-model/train.py            # everything; `npm ci` in this folder first
    python scripts/demo-model/train.py --runs DIR # checkpoints and logs elsewhere

Step counts and seeds are fixed, so that a rerun does the same work however busy the machine is. The vision encoder and
the base language model train side by side, one thread each.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
STEPS = {"vision": 3500, "language": 2500, "alignment": 1000}
# The VLM stage in five legs, each from the weights of the one before: name, arguments, added to the seed.
LEGS = [
    ("vlm-1", ["--mix", "first", "--steps", 1200], 0),
    ("vlm-2", ["--mix", "first", "--steps", 500, "--schedule", 2000], 1),
    ("vlm-3", ["--mix", "second", "--steps", 1500], 2),
    ("vlm-4", ["--mix", "third", "--steps", 1100], 3),
    ("vlm-5", ["--mix", "separate", "--steps", 1000], 4),
]
AVERAGED = ["vlm-4", "vlm-5"]
SEED = 1


def python(script, *arguments, log=None):
    command = [sys.executable, "-u", str(HERE / script), *map(str, arguments)]
    print(" ".join(command), flush=True)
    return subprocess.Popen(command, stdout=open(log, "w") if log else None)


def finish(*processes):
    if any([process.wait() for process in processes]):
        raise SystemExit("a training stage failed; see its log")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, default=HERE / "cache")
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "models" / "demo")
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    for script in ("tasks.mjs", "render.mjs"):
        subprocess.run(["node", str(HERE / script)], check=True, cwd=HERE)

    def file(name):
        return args.runs / f"{name}.pt"

    def stage(name, script, *more, seed=args.seed):
        return python(script, "--seed", seed, "--out", file(name), *more, log=args.runs / f"{name}.log")

    finish(
        stage("vision", "train_vision.py", "--steps", STEPS["vision"]),
        stage("language", "train_language.py", "--steps", STEPS["language"]),
    )
    parts = ["--language", file("language"), "--vision", file("vision")]
    finish(stage("alignment", "train_alignment.py", "--steps", STEPS["alignment"], *parts))
    last = "alignment"
    for name, arguments, offset in LEGS:
        finish(stage(name, "train_vlm.py", "--aligned", file(last), *arguments, seed=args.seed + offset))
        last = name
    result = ["--model", *(file(name) for name in AVERAGED), "--language", file("language")]
    finish(python("export.py", *result, "--out", args.out))
    finish(python("evaluate.py", *result))


if __name__ == "__main__":
    main()
