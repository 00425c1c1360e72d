"""Region encoder: multi-level fusion, RoIAlign and a position branch, official tensor names.

Two oddities are upstream's and reproduced: boxes are multiplied by 448 whatever the image size is, and with
``box_format = "cxcywh"`` the centre form is read as if it were corners.
"""

from __future__ import annotations

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from groma_training.boxes import corners
from groma_training.config import RegionConfig
from groma_training.model.encoder import patch_map

ROI_CANVAS = 448.0
ROI_SAMPLES = 2


class FuseConv(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.gn = nn.GroupNorm(groups, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.gn(self.conv(x)))


class MultiLevelFuse(nn.Module):
    """The part that does not depend on the boxes."""

    def __init__(self, c: RegionConfig, width: int) -> None:
        super().__init__()
        self.scales = c.level_scales
        e = c.embed_dims or width
        self.input_conv = nn.ModuleList([nn.Conv2d(width + 2, e, 1) for _ in c.level_scales])
        self.fuse_convs = nn.ModuleList([FuseConv(e, c.num_groups) for _ in range(c.num_fuse)])

    def project(self, states: list[Tensor]) -> list[Tensor]:
        """The last states as maps [B,D,h,w], shallowest first -> one [B,E,s*h,s*w] a level."""
        maps = []
        for conv, scale, state in zip(self.input_conv, self.scales, states, strict=True):
            h, w = (n * scale for n in state.shape[-2:])
            x = _resize(state, (h, w))
            column = torch.linspace(-1, 1, w, device=x.device, dtype=x.dtype)[None].expand(h, w)
            row = torch.linspace(-1, 1, h, device=x.device, dtype=x.dtype)[:, None].expand(h, w)
            grid = torch.stack([column, row])[None].expand(len(x), -1, -1, -1)
            maps.append(conv(torch.cat([x, grid], 1)))
        return maps

    def forward(self, states: list[Tensor]) -> list[Tensor]:
        maps = self.project(states)
        last, e = len(maps) - 1, maps[0].shape[1]
        quarter = e // 4
        keep = e - 2 * quarter
        for fuse in self.fuse_convs:
            mixed = []
            for i, own in enumerate(maps):
                after, before = maps[min(i + 1, last)], maps[max(i - 1, 0)]
                size = tuple(own.shape[-2:])
                mixed.append(torch.cat([own[:, :keep], _resize(after[:, keep + quarter :], size),
                                        _resize(before[:, keep : keep + quarter], size)], 1))
            maps = [fuse(m) for m in mixed]
        return maps


class RoiAlign(nn.Module):
    def __init__(self, c: RegionConfig, width: int, out: int) -> None:
        super().__init__()
        self.c = c
        e = c.embed_dims or width
        self.pconvs = nn.ModuleList([nn.Conv2d(e, e, 3, padding=1) for _ in c.level_scales])
        self.pos_embedd = nn.Sequential(nn.Linear(4, c.pos_dims), nn.ReLU(), nn.LayerNorm(c.pos_dims),
                                        nn.Linear(c.pos_dims, c.hidden_dims), nn.ReLU(), nn.LayerNorm(c.hidden_dims))
        self.flatten_linear = nn.Linear(e * c.roi_size * c.roi_size, c.hidden_dims)
        self.updims = nn.Linear(c.hidden_dims, out)

    def read(self, maps: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """maps [B,E,.,.], boxes B x [R,4] centre form -> what stands before ``flatten_linear``, [sum R,E*s*s]."""
        rois = [(b if self.c.box_format == "cxcywh" else corners(b)).float() * ROI_CANVAS for b in boxes]
        total = 0.0
        for conv, fmap, stride in zip(self.pconvs, maps, self.c.featmap_strides, strict=True):
            total = total + conv(roi_align(fmap.float(), rois, self.c.roi_size, 1.0 / stride, ROI_SAMPLES, aligned=True))
        return F.relu(total).flatten(1)

    def position(self, boxes: Tensor) -> Tensor:
        """[R,4] -> [R,hidden]."""
        return self.pos_embedd(boxes)


class RegionEncoder(nn.Module):
    """``region_encoder``: states and boxes -> one token a region."""

    def __init__(self, c: RegionConfig, width: int, out: int) -> None:
        super().__init__()
        self.mlvl_fuse = MultiLevelFuse(c, width)
        self.roi_align = RoiAlign(c, width, out)

    def maps(self, states: list[Tensor]) -> list[Tensor]:
        """The encoder's states [B,1+N,D], at least as many of the last as there are levels -> those levels' maps."""
        last = states[-len(self.mlvl_fuse.scales) :]
        return [patch_map(s.float(), isqrt(s.shape[1] - 1)) for s in last]

    def forward(self, states: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """states as for ``maps``, boxes B x [R,4] centre form -> tokens [sum R,H]."""
        return self.roi_align.updims(self._flat(states, boxes) + self.roi_align.position(torch.cat(boxes)))

    def shows(self, states: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """What regions show, without where they lie, in the decoder's input space less its centre: f32 [sum R,H]."""
        weight = self.roi_align.updims.weight
        return F.linear(self._flat(states, [b.to(weight.device) for b in boxes]).float(), weight.float())

    def _flat(self, states: list[Tensor], boxes: list[Tensor]) -> Tensor:
        return self.roi_align.flatten_linear(self.roi_align.read(self.mlvl_fuse(self.maps(states)), boxes))


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=True)
