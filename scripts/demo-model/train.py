"""From nothing to models/demo/: pictures, vision encoder, base language model, vision-language model, GGUF files.

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
STEPS = {"vision": 3500, "language": 2500, "vlm": 2000}
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
    files = {name: args.runs / f"{name}.pt" for name in STEPS}
    logs = {name: args.runs / f"{name}.log" for name in STEPS}

    def stage(name, script, *more):
        return python(
            script, "--steps", STEPS[name], "--seed", args.seed, "--out", files[name], *more, log=logs[name]
        )

    finish(stage("vision", "train_vision.py"), stage("language", "train_language.py"))
    finish(stage("vlm", "train_vlm.py", "--language", files["language"], "--vision", files["vision"]))
    finish(python("export.py", "--model", files["vlm"], "--language", files["language"], "--out", args.out))
    finish(python("evaluate.py", "--model", files["vlm"], "--language", files["language"]))


if __name__ == "__main__":
    main()
