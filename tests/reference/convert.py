"""Runs llama.cpp's own converter on a tiny checkpoint.

Only the vocabulary step is replaced: the converter knows tokenizers by the hash of a test string, and a tiny one has
none. Everything else, tensors and hyperparameters, is what a user of convert_hf_to_gguf.py gets.
"""

import logging
import sys
from pathlib import Path


def use_llama_cpp(root):
    root = Path(root)
    if not (root / 'convert_hf_to_gguf.py').is_file():
        raise SystemExit(f'{root} is not a llama.cpp source tree; see README.md for how to get one')
    sys.path[:0] = [str(root / 'gguf-py'), str(root)]
    logging.basicConfig(level=logging.WARNING)


def _model_class(checkpoint, mmproj):
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    hparams = ModelBase.load_hparams(checkpoint, False)
    kind = ModelType.MMPROJ if mmproj else ModelType.TEXT
    return get_model_class(get_model_architecture(hparams, kind), mmproj=mmproj), hparams


def convert_text(checkpoint, out, name, pre_tokenizer, more_hparams):
    """pre_tokenizer None writes no tokenizer at all (tokenizer.ggml.model = none)."""
    import gguf

    base, hparams = _model_class(checkpoint, mmproj=False)

    class Tiny(base):
        model_arch = base.model_arch

        def get_vocab_base_pre(self, tokenizer):
            return pre_tokenizer

        def set_vocab(self):
            if pre_tokenizer is None:
                self._set_vocab_none()
                key = gguf.Keys.LLM.VOCAB_SIZE.format(arch=self.gguf_writer.arch)
                if key not in self.gguf_writer.kv_data[0]:
                    self.gguf_writer.add_vocab_size(self.hparams['vocab_size'])
            else:
                self._set_vocab_gpt2()

    hparams = {**hparams, **more_hparams}
    Tiny(checkpoint, gguf.LlamaFileType.ALL_F32, out, model_name=name, hparams=hparams).write()


def convert_mmproj(checkpoint, out, name, keep=None):
    """keep: the end of a tensor's name that the converter drops by mistake."""
    import gguf

    base, _ = _model_class(checkpoint, mmproj=True)

    class Kept(base):
        model_arch = base.model_arch

        @classmethod
        def filter_tensors(cls, item):
            return item if keep and item[0].endswith(keep) else super().filter_tensors(item)

    Kept(checkpoint, gguf.LlamaFileType.ALL_F32, out, model_name=name).write()
