"""Makes tests/fixtures/safetensors/python.safetensors with the reference implementation of the format.

    python tests/reference/make_safetensors.py     # made with safetensors 0.8.0, torch 2.15.0
"""
from pathlib import Path

import torch
from safetensors.torch import save_file

tensors = {
    "f32": torch.tensor([[1.5, -2.25, 3e-20], [0.0, -0.0, 6.5e30]]),
    # subnormal, largest finite, infinity and the neighbour of 1 in half precision
    "f16": torch.tensor([2.0**-24, -(2.0**-14), 65504.0, float("inf"), 1 + 2.0**-10, -0.333251953125], dtype=torch.float16),
    "bf16": torch.tensor([1.0, -3.140625, 2.0**127, float("-inf")], dtype=torch.bfloat16),
    "f64": torch.tensor([0.1, -1e300], dtype=torch.float64),
    "i64": torch.tensor([2**62, -1], dtype=torch.int64),
    "i32": torch.tensor([[7], [-7]], dtype=torch.int32),
    "i16": torch.tensor([-32768, 32767], dtype=torch.int16),
    "i8": torch.tensor([-128, 127, 5], dtype=torch.int8),
    "u8": torch.tensor([0, 255], dtype=torch.uint8),
    "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(42.0),
    "empty": torch.zeros(0, 4),
}
out = Path(__file__).parent.parent / "fixtures" / "safetensors" / "python.safetensors"
out.parent.mkdir(parents=True, exist_ok=True)
save_file(tensors, out, metadata={"greeting": "grüß \"Gott\"", "layers": "[0, 1]"})
