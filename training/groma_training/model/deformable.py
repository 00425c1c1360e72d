"""Deformable attention and the layers built on it (Deformable DETR), official tensor names."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shapes = list[tuple[int, int]]


class DeformableAttention(nn.Module):
    """Every query reads ``points`` places of every level around its reference."""

    def __init__(self, d: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(d, heads * levels * points * 2)
        self.attention_weights = nn.Linear(d, heads * levels * points)
        self.value_proj = nn.Linear(d, d)
        self.output_proj = nn.Linear(d, d)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Offsets start as rays, one direction a head, one step a point; weights start equal."""
        turn = torch.arange(self.heads) * (2 * math.pi / self.heads)
        ray = torch.stack([turn.cos(), turn.sin()], -1)
        ray = ray / ray.abs().max(-1, keepdim=True).values
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)
        bias = ray[:, None, None] * steps[None, None, :, None]
        self.sampling_offsets.bias.copy_(bias.expand(-1, self.levels, -1, -1).flatten())
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, memory: Tensor, reference: Tensor, shapes: Shapes) -> Tensor:
        """query [B,Q,d] (position added), memory [B,T,d], reference [B,Q,2 or 4] centre form -> [B,Q,d]."""
        b, q, d = query.shape
        h, n, p = self.heads, self.levels, self.points
        value = self.value_proj(memory).float()
        offset = self.sampling_offsets(query).float().reshape(b, q, h, n, p, 2)
        weight = self.attention_weights(query).float().reshape(b, q, h, n * p).softmax(-1).reshape(b, q, h, n, p)
        if reference.shape[-1] == 2:
            size = torch.tensor([[w, hh] for hh, w in shapes], dtype=torch.float32, device=query.device)
            place = reference[:, :, None, None, None] + offset / size[None, None, None, :, None]
        else:
            place = reference[:, :, None, None, None, :2] + offset / p * reference[:, :, None, None, None, 2:] * 0.5
        grid = (2 * place - 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 1)  # [B*h,n,Q,p,2]
        weight = weight.permute(0, 2, 3, 1, 4).flatten(0, 1)  # [B*h,n,Q,p]
        out, start = 0.0, 0
        for level, (hh, ww) in enumerate(shapes):
            part = value[:, start : start + hh * ww]
            start += hh * ww
            fmap = part.transpose(1, 2).reshape(b * h, d // h, hh, ww)
            read = F.grid_sample(fmap, grid[:, level], mode="bilinear", padding_mode="zeros", align_corners=False)
            out = out + (read * weight[:, level, None]).sum(-1)  # [B*h,d/h,Q]
        return self.output_proj(out.reshape(b, d, q).transpose(1, 2))


class SelfAttention(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(d, d)
        self.k_proj = nn.Linear(d, d)
        self.v_proj = nn.Linear(d, d)
        self.out_proj = nn.Linear(d, d)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        q, k, v = self.q_proj(x + position), self.k_proj(x + position), self.v_proj(x)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))


class EncoderLayer(nn.Module):
    def __init__(self, d: int, heads: int, levels: int, points: int, ffn: int) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(d, heads, levels, points)
        self.self_attn_layer_norm = nn.LayerNorm(d)
        self.fc1 = nn.Linear(d, ffn)
        self.fc2 = nn.Linear(ffn, d)
        self.final_layer_norm = nn.LayerNorm(d)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, shapes: Shapes) -> Tensor:
        x = self.self_attn_layer_norm(x + self.self_attn(x + position, x, reference, shapes))
        return self.final_layer_norm(x + self.fc2(F.relu(self.fc1(x))))


class DecoderLayer(nn.Module):
    def __init__(self, d: int, heads: int, levels: int, points: int, ffn: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(d, heads)
        self.self_attn_layer_norm = nn.LayerNorm(d)
        self.encoder_attn = DeformableAttention(d, heads, levels, points)
        self.encoder_attn_layer_norm = nn.LayerNorm(d)
        self.fc1 = nn.Linear(d, ffn)
        self.fc2 = nn.Linear(ffn, d)
        self.final_layer_norm = nn.LayerNorm(d)

    def forward(self, x: Tensor, position: Tensor, memory: Tensor, reference: Tensor, shapes: Shapes) -> Tensor:
        x = self.self_attn_layer_norm(x + self.self_attn(x, position))
        x = self.encoder_attn_layer_norm(x + self.encoder_attn(x + position, memory, reference, shapes))
        return self.final_layer_norm(x + self.fc2(F.relu(self.fc1(x))))


class BoxHead(nn.Module):
    """Three linears; 256 wide whatever d is, as upstream."""

    HIDDEN = 256

    def __init__(self, d: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(d, self.HIDDEN), nn.Linear(self.HIDDEN, self.HIDDEN),
                                     nn.Linear(self.HIDDEN, 4)])
        nn.init.zeros_(self.layers[2].weight)
        nn.init.zeros_(self.layers[2].bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[2](F.relu(self.layers[1](F.relu(self.layers[0](x)))))


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of every pixel, [B,C,H,W]."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))
        self.bias = nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), self.weight, self.bias, 1e-6)
        return y.permute(0, 3, 1, 2)


def input_projection(width: int, d: int, levels: int, level: int) -> nn.Sequential:
    """``input_proj.{level}``: levels run from finest to coarsest; a lone level keeps the encoder's size."""
    kind = 1 if levels == 1 else levels - 1 - level
    if kind == 0:
        return nn.Sequential(nn.Conv2d(width, d, 3, 2, 1), ChannelNorm(d))
    if kind == 1:
        return nn.Sequential(nn.Conv2d(width, d, 1), ChannelNorm(d))
    if kind == 2:
        return nn.Sequential(nn.ConvTranspose2d(width, d // 2, 2, 2), nn.Conv2d(d // 2, d, 1), ChannelNorm(d),
                             nn.Conv2d(d, d, 3, 1, 1))
    if kind == 3:
        return nn.Sequential(nn.ConvTranspose2d(width, d // 2, 2, 2), ChannelNorm(d // 2), nn.GELU(),
                             nn.ConvTranspose2d(d // 2, d // 4, 2, 2), nn.Conv2d(d // 4, d, 1), ChannelNorm(d),
                             nn.Conv2d(d, d, 3, 1, 1))
    raise ValueError(f"num_feature_levels is {levels}: expected at most 4")


def sine_terms(v: Tensor, n: int) -> Tensor:
    """[..] -> [..,n]: even places the sine, odd places the cosine of v / 10000^(2*floor(i/2)/n)."""
    i = torch.arange(n, device=v.device)
    angle = v[..., None] / 10000.0 ** (2 * torch.div(i, 2, rounding_mode="floor") / n)
    return torch.where(i % 2 == 0, angle.sin(), angle.cos())


def sine_position(h: int, w: int, d: int, device: torch.device) -> Tensor:
    """[h*w,d]: the first half tells y, the second x."""
    y = (torch.arange(1, h + 1, device=device) - 0.5) / (h + 1e-6) * (2 * math.pi)
    x = (torch.arange(1, w + 1, device=device) - 0.5) / (w + 1e-6) * (2 * math.pi)
    py, px = sine_terms(y, d // 2), sine_terms(x, d // 2)
    return torch.cat([py[:, None].expand(h, w, -1), px[None].expand(h, w, -1)], -1).reshape(h * w, d)


def cell_centres(h: int, w: int, device: torch.device) -> Tensor:
    """[h*w,2] (x, y) in 0..1, row by row."""
    y, x = (torch.arange(h, device=device) + 0.5) / h, (torch.arange(w, device=device) + 0.5) / w
    return torch.stack([x[None].expand(h, w), y[:, None].expand(h, w)], -1).reshape(-1, 2)
