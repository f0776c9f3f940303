"""Makes tests/fixtures/models: tiny GGUF models and the values that transformers computes for them. See README.md."""

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
sys.dont_write_bytecode = True

import torch
import transformers
from safetensors.torch import save_file

import convert
import decoders
import fuyu
import gemma3
import idefics2
import internvl
import llava
import pictures
import pixtral
import qwen2_vl
import qwen3_vl
import smolvlm

OUT = Path(__file__).resolve().parent.parent / 'fixtures' / 'models'


def write_reference(name, tensors, entry):
    """The values as <name>.safetensors, what they belong to as <name>.json."""
    path = OUT / f'{name}.safetensors'
    save_file({k: v.float().contiguous() for k, v in tensors.items()}, path)
    path.chmod(0o644)
    entry = {
        'name': name,
        'madeWith': {
            'python': platform.python_version(),
            'torch': torch.__version__,
            'transformers': transformers.__version__,
        },
        'model': f'{name}.gguf',
        'reference': path.name,
        **entry,
    }
    text = json.dumps(entry, indent=1, ensure_ascii=False)
    text = re.sub(r'\[\s+([-\d,\s]+?)\s+\]', lambda m: '[' + re.sub(r'\s+', ' ', m[1]) + ']', text)
    (OUT / f'{name}.json').write_text(text + '\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--llama-cpp', required=True, help='a llama.cpp source tree, for its converter')
    parser.add_argument('--only', nargs='*', help='remake these families and keep the others')
    parser.add_argument('--keep', help='keep the transformers checkpoints in this directory')
    args = parser.parse_args()
    convert.use_llama_cpp(args.llama_cpp)
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    torch.use_deterministic_algorithms(True)
    OUT.mkdir(parents=True, exist_ok=True)
    makers = {name: module for module in (decoders, llava, qwen2_vl, qwen3_vl, gemma3, pixtral, smolvlm, internvl, idefics2, fuyu) for name in module.FAMILIES}
    unknown = set(args.only or ()) - set(makers)
    if unknown:
        raise SystemExit(f'unknown families {sorted(unknown)}; there are {sorted(makers)}')

    pictures.write_pictures()
    with tempfile.TemporaryDirectory() as scratch:
        for name, module in makers.items():
            if args.only and name not in args.only:
                continue
            checkpoint = Path(args.keep or scratch) / name
            tensors, entry = module.make(name, checkpoint, OUT, convert)
            write_reference(name, tensors, entry)
            print(f'{name}: {(OUT / f"{name}.gguf").stat().st_size // 1000} kB, '
                  f'reference {(OUT / f"{name}.safetensors").stat().st_size // 1000} kB')


if __name__ == '__main__':
    main()
