"""Selection: which proposals and user boxes become regions, and in what order."""

from __future__ import annotations

import torch
from torch import Tensor

from groma_training.boxes import corners, iou_matrix


def nms(boxes: Tensor, scores: Tensor, iou_thres: float, score_thres: float, most: int) -> Tensor:
    """Corners [N,4], scores [N] -> indices, best first, at most ``most`` (if positive).

    Comparisons are strict, equal scores go by index, and no score is too low when ``score_thres`` <= 0.  Boxes without
    area suppress nothing.
    """
    some = torch.arange(len(scores)) if score_thres <= 0 else (scores > score_thres).nonzero()[:, 0].cpu()
    some = some[torch.sort(scores[some].cpu(), descending=True, stable=True).indices]
    overlap = iou_matrix(boxes[some], boxes[some]).cpu() > iou_thres
    alive, keep = torch.ones(len(some), dtype=torch.bool), []
    for i in range(len(some)):
        if alive[i]:
            keep.append(int(some[i]))
            alive &= ~overlap[i]
            if len(keep) == most:
                break
    return torch.tensor(keep, dtype=torch.long)


def select(boxes: Tensor, scores: Tensor, refer: Tensor, *, nms_thres: float, score_thres: float, most: int,
           ) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted boxes [Q,4] and user boxes [U,4], centre form -> indices [R] into both, boxes [R,4], match [U].

    User boxes score exactly 1 and so come first, unless an earlier user box suppresses them; ``match`` tells the kept
    region nearest to each.  Where nothing passes, the best candidate alone remains.
    """
    all_boxes = torch.cat([boxes, refer.reshape(-1, 4).to(boxes)])
    all_scores = torch.cat([scores, scores.new_ones(len(refer))])
    keep = nms(corners(all_boxes), all_scores, nms_thres, score_thres, most)
    if not len(keep):
        keep = all_scores.argmax()[None]
    kept = all_boxes[keep]
    if not len(refer):
        return keep, kept, torch.zeros(0, dtype=torch.long)
    return keep, kept, iou_matrix(corners(refer.to(boxes)), corners(kept)).argmax(-1)


def seeded_order(n: int, seed: int) -> list[int]:
    """A permutation of 0..n-1 (SplitMix64, Fisher-Yates from the end), the same in every front of the engine."""
    mask, state, p = (1 << 64) - 1, seed & ((1 << 64) - 1), list(range(n))
    for i in range(n - 1, 0, -1):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        j = (z ^ (z >> 31)) % (i + 1)
        p[i], p[j] = p[j], p[i]
    return p
