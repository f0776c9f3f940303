"""Which pictures are trained on. `python splits.py CACHE` draws the split anew and writes splits.json, which is committed.

Kinds of a picture:
  train        in the training
  validation   a tenth of the pictures that would be: every choice while training is made on these
  held-style   the held-out drawing style, of entities that are trained on
  held-photo   a photograph kept back: all photographs of a fifth of the things that have some, and a fifth of the others
  held-entity  anything that shows a held-out entity: a fifth of those with a drawing in each domain
"""

import json
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILE = HERE / "splits.json"
SEED = 20261129
HELD_STYLE = "twemoji"


def load(cache):
    pictures = json.loads((Path(cache) / "pictures.json").read_text())
    split = json.loads(FILE.read_text())
    held, things, files = set(split["entities"]), set(split["photographed"]), set(split["photographs"])
    validation = set(split["validation"])

    def kind(picture):
        if picture["entity"] in held:
            return "held-entity"
        if picture["style"] == HELD_STYLE:
            return "held-style"
        if picture["style"] == "photograph" and (picture["entity"] in things or picture["file"] in files):
            return "held-photo"
        return "validation" if label(picture) in validation else "train"

    return pictures, [kind(picture) for picture in pictures]


def label(picture):
    """Two drawings of one entity in one style (an animal and its face) go to the same side."""
    return "/".join([picture["entity"], picture.get("file", picture["style"])])


def draw(pictures):
    rng = random.Random(SEED)
    entities = []
    for domain in ("country", "animal", "food"):
        drawn = sorted({p["entity"] for p in pictures if p["domain"] == domain and p["style"] != "photograph"})
        entities += sorted(rng.sample(drawn, round(len(drawn) / 5)))
    rest = [p for p in pictures if p["entity"] not in entities]
    photographs = [p for p in rest if p["style"] == "photograph"]
    things = sorted({p["entity"] for p in photographs})
    photographed = sorted(rng.sample(things, round(len(things) / 5)))
    files = sorted(p["file"] for p in photographs if p["entity"] not in photographed)
    kept_back = sorted(rng.sample(files, round(len(files) / 5)))
    trained = [
        p for p in rest
        if p["style"] != HELD_STYLE and p["entity"] not in photographed and p.get("file") not in kept_back
    ]  # fmt: skip
    labels = sorted({label(p) for p in trained})
    validation = sorted(rng.sample(labels, round(len(labels) / 10)))
    return {
        "seed": SEED, "style": HELD_STYLE, "entities": entities, "photographed": photographed,
        "photographs": kept_back, "validation": validation,
    }  # fmt: skip


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    FILE.write_text(json.dumps(draw(json.loads((folder / "pictures.json").read_text())), indent=2) + "\n")
    _, kinds = load(folder)
    print({kind: kinds.count(kind) for kind in sorted(set(kinds))})
