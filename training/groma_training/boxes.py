"""Box arithmetic. "Centre form" is (cx, cy, w, h), "corners" (x0, y0, x1, y1); both normalised to the square image."""

from __future__ import annotations

import torch
from torch import Tensor


def corners(b: Tensor) -> Tensor:
    """Centre form [..,4] -> corners [..,4]."""
    half = b[..., 2:] * 0.5
    return torch.cat([b[..., :2] - half, b[..., :2] + half], -1)


def centres(b: Tensor) -> Tensor:
    """Corners [..,4] -> centre form [..,4]."""
    return torch.cat([(b[..., :2] + b[..., 2:]) * 0.5, b[..., 2:] - b[..., :2]], -1)


def area(b: Tensor) -> Tensor:
    """Corners [..,4] -> [..]."""
    return (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])


def _intersections(a: Tensor, b: Tensor) -> Tensor:
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    size = (high - low).clamp(min=0)
    return size[..., 0] * size[..., 1]


def iou_matrix(a: Tensor, b: Tensor) -> Tensor:
    """Corners [N,4] x [M,4] -> [N,M]."""
    inter = _intersections(a, b)
    return inter / (area(a)[:, None] + area(b)[None] - inter)


def part_matrix(a: Tensor, b: Tensor) -> Tensor:
    """Corners [N,4] x [M,4] -> [N,M]: the share of the smaller box that lies in the larger one."""
    return _intersections(a, b) / torch.minimum(area(a)[:, None], area(b)[None])


def iou_and_giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Row by row, corners [N,4] each -> IoU [N], generalised IoU [N]."""
    inter = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(-1)
    union = area(a).clamp(min=0) + area(b).clamp(min=0) - inter
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(-1).clamp(min=1e-9)
    iou = inter / union.clamp(min=1e-9)
    return iou, iou - (hull - union) / hull


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def flip(b: Tensor) -> Tensor:
    """Centre form [..,4] mirrored left to right."""
    return torch.cat([1 - b[..., :1], b[..., 1:]], -1)


def crop(b: Tensor, window: tuple[float, float, float, float], keep: float = 0.4, fills: float = 0.2,
         ) -> tuple[Tensor, Tensor]:
    """Corners [N,4] seen through ``window`` (corners) -> corners in the window's own 0..1, and which boxes remain.

    A box remains if at least the share ``keep`` of its area is visible, or if what is visible fills the share ``fills`` of
    the window; its visible part is what is returned.
    """
    x0, y0, x1, y1 = window
    low, high = b.new_tensor([x0, y0]), b.new_tensor([x1, y1])
    seen = torch.cat([torch.maximum(b[:, :2], low), torch.minimum(b[:, 2:], high)], -1)
    size = high - low
    enough = (area(seen) >= keep * area(b)) | (area(seen) >= fills * size.prod())
    visible = (seen[:, 2:] > seen[:, :2]).all(-1) & enough
    return torch.cat([(seen[:, :2] - low) / size, (seen[:, 2:] - low) / size], -1)[visible], visible
