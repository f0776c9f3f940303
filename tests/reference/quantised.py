"""Makes tests/fixtures/checkpoints/quantised.safetensors: rows, the blocks that ggml makes of them, and the floats that
gguf's own Python code makes of those blocks. ggml is the library that node-llama-cpp ships.

    python quantised.py node_modules/@node-llama-cpp/linux-x64/bins/linux-x64/libggml-base.so
"""

import ctypes
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file

OUT = Path(__file__).resolve().parent.parent / 'fixtures' / 'checkpoints' / 'quantised.safetensors'
ROWS, ROW = 4, 256


def main():
    ggml = ctypes.CDLL(sys.argv[1])
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + 3 * [ctypes.c_int64] + [ctypes.c_void_p]
    source = np.random.default_rng(3).normal(size=(ROWS, ROW)).astype(np.float32)
    tensors = {'source': source}
    for name in ('Q8_0', 'Q5_0', 'Q4_K', 'Q6_K'):
        kind = gguf.GGMLQuantizationType[name]
        values, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = np.zeros((ROWS, ROW // values * size), np.uint8)
        ggml.ggml_quantize_chunk(int(kind), source.ctypes.data, blocks.ctypes.data, 0, ROWS, ROW, None)
        tensors[f'{name}.blocks'] = blocks
        tensors[f'{name}.floats'] = gguf.quants.dequantize(blocks, kind).astype(np.float32)
    save_file(tensors, OUT)
    OUT.chmod(0o644)


if __name__ == '__main__':
    main()
