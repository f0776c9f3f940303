"""The two networks of the demo model, written to match llama.cpp's `llama` and `clip` (projector `mlp`) graphs."""

import math

import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-5


def gelu(x):
    return F.gelu(x, approximate="tanh")


def split_heads(x, heads):
    batch, length, width = x.shape
    return x.view(batch, length, heads, width // heads).transpose(1, 2)


def join_heads(x):
    return x.transpose(1, 2).flatten(2)


class VisionBlock(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width, eps=EPS), nn.LayerNorm(width, eps=EPS)
        self.attn_q, self.attn_k = nn.Linear(width, width), nn.Linear(width, width)
        self.attn_v, self.attn_out = nn.Linear(width, width), nn.Linear(width, width)
        self.ffn_up, self.ffn_down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        y = self.ln1(x)
        q, k, v = (split_heads(layer(y), self.heads) for layer in (self.attn_q, self.attn_k, self.attn_v))
        x = x + self.attn_out(join_heads(F.scaled_dot_product_attention(q, k, v)))
        return x + self.ffn_down(gelu(self.ffn_up(self.ln2(x))))


class Vision(nn.Module):
    """CLIP-style encoder without a class token. Pictures [B, 3, 64, 64] in -1..1 -> [B, 16, width]."""

    def __init__(self, width=128, layers=4, heads=4, hidden=512, image=64, patch=16):
        super().__init__()
        self.config = dict(width=width, layers=layers, heads=heads, hidden=hidden, image=image, patch=patch)
        self.patch = nn.Conv2d(3, width, patch, patch, bias=False)
        self.position = nn.Parameter(torch.randn((image // patch) ** 2, width) * 0.02)
        self.pre_ln, self.post_ln = nn.LayerNorm(width, eps=EPS), nn.LayerNorm(width, eps=EPS)
        self.blocks = nn.ModuleList([VisionBlock(width, heads, hidden) for _ in range(layers)])

    def forward(self, pictures):
        x = self.pre_ln(self.patch(pictures).flatten(2).transpose(1, 2) + self.position)
        for block in self.blocks:
            x = block(x)
        return self.post_ln(x)


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, EPS)


def rotate(x, cos, sin):
    """Rotary positions on neighbouring pairs (2i, 2i+1): llama.cpp's NORM layout, so no permutation at export."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


class DecoderBlock(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.heads = heads
        self.attn_norm, self.ffn_norm = RMSNorm(width), RMSNorm(width)
        self.attn_q, self.attn_k, self.attn_v, self.attn_output = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.ffn_gate, self.ffn_up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.ffn_down = nn.Linear(hidden, width, bias=False)

    def forward(self, x, cos, sin):
        y = self.attn_norm(x)
        q, k, v = (split_heads(layer(y), self.heads) for layer in (self.attn_q, self.attn_k, self.attn_v))
        mixed = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        x = x + self.attn_output(join_heads(mixed))
        y = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(y)) * self.ffn_up(y))


class Decoder(nn.Module):
    def __init__(self, vocabulary, width=128, layers=8, heads=4, hidden=512, context=512, theta=10000.0):
        super().__init__()
        self.config = dict(
            vocabulary=vocabulary, width=width, layers=layers, heads=heads, hidden=hidden, context=context, theta=theta
        )
        self.token_embd = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList([DecoderBlock(width, heads, hidden) for _ in range(layers)])
        self.output_norm = RMSNorm(width)
        half = width // heads
        angle = torch.outer(torch.arange(context).float(), theta ** (-torch.arange(0, half, 2).float() / half))
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                writes_residual = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(weight, std=0.02 / (math.sqrt(2 * layers) if writes_residual else 1))
        nn.init.normal_(self.token_embd.weight, std=0.05)

    def forward(self, x, patch=None, collect=None):
        """Embeddings [B, T, width] -> (last block's output, states).

        patch = (layer, position [B], vector [B, width]) replaces the output of block `layer` at one position a row.
        collect = position [B] also returns every block's output there, [layers, B, width], after the patch.
        """
        cos, sin = self.cos[: x.shape[1]], self.sin[: x.shape[1]]
        rows = torch.arange(x.shape[0])
        states = []
        for layer, block in enumerate(self.blocks):
            x = block(x, cos, sin)
            if patch is not None and patch[0] == layer:
                x = x.clone()
                x[rows, patch[1]] = patch[2]
            if collect is not None:
                states.append(x[rows, collect])
        return x, torch.stack(states) if states else None

    def logits(self, hidden):
        return F.linear(self.output_norm(hidden), self.token_embd.weight)


class VisionLanguage(nn.Module):
    def __init__(self, decoder, vision, hidden=256):
        super().__init__()
        self.decoder, self.vision = decoder, vision
        self.mm0 = nn.Linear(vision.config["width"], hidden)
        self.mm2 = nn.Linear(hidden, decoder.config["width"])

    def picture_rows(self, pictures):
        return self.mm2(gelu(self.mm0(self.vision(pictures))))

    def embed(self, ids, rows=None):
        """Token ids [B, T] with -1 where picture rows go, those rows in reading order -> [B, T, width]."""
        x = self.decoder.token_embd(ids.clamp(min=0))
        if rows is not None:
            x = x.clone()
            x[ids == -1] = rows.reshape(-1, x.shape[-1])
        return x
