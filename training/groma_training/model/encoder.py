"""Image encoder: DINOv2 under its official tensor names.

The final ``layernorm`` is kept for the names' sake; no stage of Groma reads its output (they all take the states
before it).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groma_training.config import VisionConfig


class PatchEmbeddings(nn.Module):
    def __init__(self, c: VisionConfig) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, c.hidden_size, c.patch_size, c.patch_size)


class Embeddings(nn.Module):
    """Pixels [B,3,S,S] -> class token, patches and positions [B,1+N,D]."""

    def __init__(self, c: VisionConfig) -> None:
        super().__init__()
        grid = c.image_size // c.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.hidden_size))
        self.mask_token = nn.Parameter(torch.zeros(1, c.hidden_size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + grid * grid, c.hidden_size))
        self.patch_embeddings = PatchEmbeddings(c)

    def positions(self, h: int, w: int) -> Tensor:
        """The position table for an h x w grid, [1,1+h*w,D].

        The 0.1 is upstream's: the table is resampled with the scale (h+0.1)/g, a slight stretch.
        """
        table = self.position_embeddings
        n = table.shape[1] - 1
        g = int(n**0.5)
        if h * w == n and h == w:
            return table
        grid = table[:, 1:].float().reshape(1, g, g, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, scale_factor=((h + 0.1) / g, (w + 0.1) / g), mode="bicubic", align_corners=False)
        assert grid.shape[-2:] == (h, w), f"position table: expected {(h, w)}, got {tuple(grid.shape[-2:])}"
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2).to(table.dtype)], 1)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embeddings.projection(pixels)
        h, w = patches.shape[-2:]
        x = patches.flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(x), -1, -1).to(x.dtype), x], 1) + self.positions(h, w).to(x.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Unmasked attention, [B,heads,T,d] each.  In bf16 on a CPU two plain products take half the time of torch's fused
    kernel, forward and backward (6 images of 1,025 tokens, one AVX-512 core: 220 instead of 478 ms)."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


class SelfAttention(nn.Module):
    def __init__(self, c: VisionConfig) -> None:
        super().__init__()
        self.heads = c.num_attention_heads
        self.query = nn.Linear(c.hidden_size, c.hidden_size)
        self.key = nn.Linear(c.hidden_size, c.hidden_size)
        self.value = nn.Linear(c.hidden_size, c.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        return attention(q, k, v).transpose(1, 2).flatten(-2)


class AttentionOutput(nn.Module):
    def __init__(self, c: VisionConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(c.hidden_size, c.hidden_size)


class Attention(nn.Module):
    def __init__(self, c: VisionConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(c)
        self.output = AttentionOutput(c)

    def forward(self, x: Tensor) -> Tensor:
        return self.output.dense(self.attention(x))


class LayerScale(nn.Module):
    def __init__(self, c: VisionConfig) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(c.hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.lambda1.to(x.dtype)


class Mlp(nn.Module):
    def __init__(self, c: VisionConfig) -> None:
        super().__init__()
        hidden = int(c.hidden_size * c.mlp_ratio)
        self.fc1 = nn.Linear(c.hidden_size, hidden)
        self.fc2 = nn.Linear(hidden, c.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, c: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        self.attention = Attention(c)
        self.layer_scale1 = LayerScale(c)
        self.norm2 = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        self.mlp = Mlp(c)
        self.layer_scale2 = LayerScale(c)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale1(self.attention(self.norm1(x)))
        return x + self.layer_scale2(self.mlp(self.norm2(x)))


class Blocks(nn.Module):
    def __init__(self, c: VisionConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Block(c) for _ in range(c.num_hidden_layers)])


class Encoder(nn.Module):
    """DINOv2; ``forward`` gives all hidden states, ``trunk`` and ``top`` split it for training the last blocks."""

    def __init__(self, c: VisionConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(c)
        self.encoder = Blocks(c)
        self.layernorm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """[B,3,S,S] -> n_layers+1 states [B,1+N,D]; the first is the sum of embeddings."""
        return self.top(self.embeddings(pixels), 0)

    def trunk(self, pixels: Tensor, blocks: int, last: int) -> list[Tensor]:
        """The first ``blocks`` blocks: of the states after them at most the ``last`` ones, [B,1+N,D] each."""
        x = self.embeddings(pixels)
        states = [x]
        for layer in self.encoder.layer[:blocks]:
            x = layer(x)
            states = [*states, x][-last:]
        return states

    def top(self, x: Tensor, blocks: int) -> list[Tensor]:
        """From the state after ``blocks`` blocks: that state and every later one."""
        states = [x]
        for layer in self.encoder.layer[blocks:]:
            x = layer(x)
            states.append(x)
        return states

    def freeze(self, blocks: int) -> None:
        """Only the blocks from number ``blocks`` on are trained; the unused final norm never is."""
        self.requires_grad_(False)
        for layer in self.encoder.layer[blocks:]:
            layer.requires_grad_(True)


def patch_map(state: Tensor, side: int) -> Tensor:
    """A state [B,1+N,D] -> [B,D,side,side] without the class row."""
    return state[:, 1:].transpose(1, 2).unflatten(2, (side, side))
