"""Makes tests/fixtures/verify: what scripts/verify-model/dump.py writes for two of the tiny checkpoints.

    python tests/reference/verify_model.py --llama-cpp llama.cpp

The GGUF files of these checkpoints are those of make.py, whose seeds they share.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
sys.dont_write_bytecode = True

from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

import convert
import decoders
import llava
import pictures

ROOT = Path(__file__).resolve().parent.parent.parent
OUT = ROOT / 'tests' / 'fixtures' / 'verify'


def dump(checkpoint, name, *args):
    output = OUT / f'{name}.safetensors'
    script = ROOT / 'scripts' / 'verify-model' / 'dump.py'
    subprocess.run([sys.executable, script, '--model', checkpoint, '-o', output, *args], check=True)
    output.chmod(0o644)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--llama-cpp', required=True)
    convert.use_llama_cpp(parser.parse_args().llama_cpp)
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        decoders.make('llama', scratch / 'llama', scratch, convert)
        # The tokenizer of a published checkpoint adds BOS itself.
        add_bos(scratch / 'llama')
        dump(scratch / 'llama', 'llama', '--prompt', r'Q:Sweden\nA:', '--tokens', '0,50,27,283,267')
        llava.make('llava', scratch / 'llava', scratch, convert)
        tokenizer = add_bos(scratch / 'llava')
        side = {'height': llava.IMAGE_SIZE, 'width': llava.IMAGE_SIZE}
        processor = LlavaProcessor(
            CLIPImageProcessor(size=side, crop_size=side, image_mean=llava.MEAN, image_std=llava.STD),
            tokenizer,
            patch_size=llava.PATCH_SIZE,
            vision_feature_select_strategy='default',
            num_additional_image_tokens=1,
            image_token='<image>',
        )
        processor.save_pretrained(scratch / 'llava')
        picture = pictures.FOLDER / pictures.SQUARE[0]
        dump(scratch / 'llava', 'llava', '--prompt', r'Q:<image>\nA:', '--image', picture)


def add_bos(checkpoint):
    from tokenizers import processors

    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single='<s> $A', special_tokens=[('<s>', 0)]
    )
    tokenizer.save_pretrained(checkpoint)
    return tokenizer


if __name__ == '__main__':
    main()
