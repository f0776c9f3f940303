"""From packages to an mmproj: pictures, encoder, projector, GGUF. One command, which goes on where it was stopped.

    python train.py --cache DIR                         # Gemma-3-270M, pictures at the start only, seed 1
    python train.py --cache DIR --mix later --seed 2    # pictures after unrelated text too
    python train.py --cache DIR --language smollm2      # or the path of a GGUF file that transformers reads
    python train.py --cache DIR --from MMPROJ           # warm and caption go on from a GGUF file that this wrote, also a quantised one
    python train.py --cache DIR --from MMPROJ --new-projector --seed 2   # its encoder, with a projector from scratch
    python train.py --cache DIR --until vision          # no further than this stage
"""

import argparse
import os
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
LANGUAGES = {
    "gemma": "gemma/gemma-3-270m-q4_k_m.gguf",
    "smollm2": "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
}
STAGES = ("pictures", "trunk", "vision", "grid", "warm", "caption", "export")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=HERE / "cache", help="downloads, features, checkpoints (4 GB)")
    parser.add_argument("--language", default="gemma", help="gemma, smollm2 or a GGUF file")
    parser.add_argument("--mix", choices=("first", "later"), default="first")
    parser.add_argument("--seed", type=int, default=1, help="of the projector")
    parser.add_argument("--copies", type=int, default=4, help="augmented copies of the training pictures")
    parser.add_argument("--vision-steps", type=int, default=1500)
    parser.add_argument("--no-teacher", action="store_true", help="the encoder learns from names alone")
    parser.add_argument("--warm-steps", type=int, default=2400, help="0 with --from: none more")
    parser.add_argument("--caption-steps", type=int, default=300)
    parser.add_argument("--from", dest="start", type=Path, help="GGUF that export.py wrote: warm and caption go on from it")
    parser.add_argument("--new-projector", action="store_true", help="with --from: take the encoder alone")
    parser.add_argument("--until", choices=STAGES, default=STAGES[-1])
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.new_projector and not args.start:
        parser.error("--new-projector needs --from")
    return args


def main():
    args = arguments()
    # Threads that wait by spinning would take the processor from the others of a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    from export import export, read
    from features import grid, taught, trunk
    from language import Language
    from parts import fetch, sha256, stamps
    from pictures import Pictures
    from train_projector import Grids, caption, warm
    from train_vision import encoder_of, train_vision

    torch.set_num_threads(args.threads)
    cache = args.cache
    cache.mkdir(parents=True, exist_ok=True)
    begun = time.time()

    def log(line):
        print(f"{time.strftime('%H:%M:%S')} {time.time() - begun:6.0f} s  {line}", flush=True)

    def over(stage):
        return STAGES.index(stage) > STAGES.index(args.until)

    if not (cache / "pictures.json").exists():
        subprocess.run(["node", HERE / "render.mjs", stamps(cache), cache], check=True)
    if over("trunk"):
        return
    pictures = Pictures(cache)
    onnx = fetch(cache, "encoder/vit_s_focus.onnx")
    copies = [trunk(pictures, onnx, cache, copy, log) for copy in range(args.copies)]
    plain = trunk(pictures, onnx, cache, "plain", log)
    if over("vision"):
        return
    projector = None
    if args.start:
        encoder, projector = read(args.start, encoder_of(onnx))
        projector = None if args.new_projector else projector
        folder = cache / f"from-{sha256(args.start)[:12]}"
    else:
        checkpoint = cache / f"vision-{args.copies}-{args.vision_steps}{'-names' if args.no_teacher else ''}.pt"
        aims = None if args.no_teacher else taught(pictures, fetch(cache, "teacher/efficientnet-lite2.pth"), cache, log)
        train_vision(pictures, onnx, copies, plain, checkpoint, args.vision_steps, log, aims)
        encoder = encoder_of(onnx, checkpoint)
        folder = checkpoint.with_suffix("")
    if over("grid"):
        return
    copies = [(indices, grid(encoder, states, folder, copy, log)) for copy, (indices, states) in enumerate(copies)]
    plain = (plain[0], grid(encoder, plain[1], folder, "plain", log))
    if over("warm"):
        return
    path = fetch(cache, LANGUAGES[args.language]) if args.language in LANGUAGES else Path(args.language)
    name = args.language if args.language in LANGUAGES else path.stem
    language = Language(path, cache / f"language-{name}")
    grids = Grids(pictures, copies, plain)
    folder = folder / name
    projector = warm(language, grids, folder, args.seed, args.warm_steps, log, projector)
    if over("caption"):
        return
    checkpoint = folder / f"caption-{args.mix}-{args.seed}.pt"
    caption(projector, language, grids, checkpoint, args.seed, args.mix, args.caption_steps, log)
    if over("export"):
        return
    result = folder / f"mmproj-{name}-{args.mix}-{args.seed}-f16.gguf"
    export(encoder, projector, result, path)
    log(f"wrote {result}")


if __name__ == "__main__":
    main()
