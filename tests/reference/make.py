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
import gemma3
import llava
import pictures
import qwen2_vl

OUT = Path(__file__).resolve().parent.parent / 'fixtures' / 'models'


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
    index_path = OUT / 'index.json'
    index = json.loads(index_path.read_text()) if index_path.is_file() else {'families': []}
    families = {family['name']: family for family in index['families']}
    makers = {name: module for module in (decoders, llava, qwen2_vl, gemma3) for name in module.FAMILIES}
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
            entry = {'name': name, 'model': f'{name}.gguf', 'reference': f'{name}.safetensors', **entry}
            save_file({k: v.float().contiguous() for k, v in tensors.items()}, OUT / entry['reference'])
            (OUT / entry['reference']).chmod(0o644)
            families[name] = entry
            print(f'{name}: {(OUT / entry["model"]).stat().st_size // 1000} kB, '
                  f'reference {(OUT / entry["reference"]).stat().st_size // 1000} kB')

    index = {
        'madeWith': {
            'python': platform.python_version(),
            'torch': torch.__version__,
            'transformers': transformers.__version__,
        },
        'families': [families[name] for name in makers if name in families],
    }
    text = json.dumps(index, indent=1, ensure_ascii=False)
    text = re.sub(r'\[\s+([-\d,\s]+?)\s+\]', lambda m: '[' + re.sub(r'\s+', ' ', m[1]) + ']', text)
    index_path.write_text(text + '\n')


if __name__ == '__main__':
    main()
