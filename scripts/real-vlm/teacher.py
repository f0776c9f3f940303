"""EfficientNet-Lite2 with Google's ImageNet weights: what it makes of a picture is a second aim of the encoder's last blocks."""

import torch
import torch.nn.functional as F

REPEATS, STRIDES = (1, 3, 3, 4, 4, 5, 1), (1, 2, 2, 2, 1, 2, 1)
SIDE, FEATURES = 192, 1280


class Teacher:
    def __init__(self, path):
        self.weights = torch.load(path, weights_only=True, map_location="cpu")

    def conv(self, x, name, norm, stride=1, groups=1, act=True):
        weight = self.weights[f"{name}.weight"]
        kernel = weight.shape[-1]
        # TensorFlow's padding: what is missing, the larger half at the end.
        missing = max((-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1], 0)
        x = F.pad(x, [missing // 2, missing - missing // 2] * 2)
        x = F.conv2d(x, weight, stride=stride, groups=groups)
        mean, var, scale, shift = (
            self.weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        x = F.batch_norm(x, mean, var, scale, shift, eps=1e-3)
        return F.relu6(x) if act else x

    @torch.inference_mode()
    def features(self, images):
        """[n, 3, side, side] in 0..1 -> [n, FEATURES]"""
        x = F.interpolate(images, (SIDE, SIDE), mode="bicubic", align_corners=False).clamp(0, 1)
        x = self.conv((x * 255 - 127) / 128, "_conv_stem", "_bn0", stride=2)
        strides = [s if i == 0 else 1 for n, s in zip(REPEATS, STRIDES, strict=True) for i in range(n)]
        for i, stride in enumerate(strides):
            block, before = f"_blocks.{i}", x
            if f"{block}._expand_conv.weight" in self.weights:
                x = self.conv(x, f"{block}._expand_conv", f"{block}._bn0")
            x = self.conv(x, f"{block}._depthwise_conv", f"{block}._bn1", stride, groups=x.shape[1])
            x = self.conv(x, f"{block}._project_conv", f"{block}._bn2", act=False)
            if x.shape == before.shape and stride == 1:
                x = x + before
        return self.conv(x, "_conv_head", "_bn1").mean((2, 3))

    def classes(self, features):
        """Logits of ImageNet's thousand."""
        return features @ self.weights["_fc.weight"].T + self.weights["_fc.bias"]
