"""Teaching the proposer, one to many.

Upstream matches one query to one box (Hungarian).  Here every stage is taught with several queries a box, chosen by
score^0.5 x overlap^3, and duplicates are left to the NMS that selects regions anyway: on few photos and steps this
learns about six times faster.  ``class_embed_enc`` and ``class_embed_coco`` learn "is this an object",
``class_embed_sa1b`` how well the box fits (its IoU).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from groma_training.boxes import corners, iou_and_giou, iou_matrix
from groma_training.model.proposer import Proposals


@dataclass(frozen=True)
class Weights:
    score: float = 1.0
    l1: float = 5.0
    giou: float = 2.0
    first_per_box: int = 8
    layer_per_box: int = 6


@dataclass
class Truth:
    """One view's boxes in centre form; ``background`` is how far an unmatched query counts as wrong (photos whose
    boxes cover only some categories are weak witnesses of absence)."""

    boxes: Tensor  # [N,4]
    crowds: Tensor  # [M,4]
    background: float = 1.0


@torch.no_grad()
def assign(logit: Tensor, predicted: Tensor, truth: Tensor, per_box: int, places: Tensor | None = None,
           ) -> tuple[Tensor, Tensor]:
    """logit [Q], predicted [Q,4], truth [N,4] -> indices (queries, boxes) of the same length.

    A query serves the one box it suits best.  ``places`` [Q,4] (first stage): only places whose centre lies in the box,
    or the nearest one, may serve it.
    """
    overlap = iou_matrix(corners(predicted), corners(truth))
    # The second term leads queries whose boxes do not touch the truth yet.
    metric = logit.sigmoid()[:, None].sqrt() * (overlap + 0.02 * torch.exp(-4 * torch.cdist(predicted, truth, p=1))) ** 3
    if places is not None:
        away = (places[:, None, :2] - truth[None, :, :2]).abs()
        distance = away.norm(dim=-1)
        inside = (away < truth[None, :, 2:] / 2).all(-1)
        nearest = distance <= distance.min(0, keepdim=True).values + 1e-6
        metric = metric * (inside | nearest) * torch.exp(-2 * (away / truth[None, :, 2:].clamp(min=0.03)).norm(dim=-1))
    value, best = metric.topk(min(per_box, len(metric)), dim=0)
    chosen = torch.zeros_like(metric).scatter_(0, best, value)  # what may not serve has a value of 0
    strength, which = chosen.max(1)
    query = strength.nonzero()[:, 0]
    return query, which[query]


def proposal_loss(out: Proposals, truths: list[Truth], weights: Weights = Weights()) -> tuple[Tensor, dict[str, float]]:
    """-> loss, and per stage the mean over boxes of the best taught query's IoU."""
    count = max(1, sum(len(t.boxes) for t in truths))
    loss, report = torch.zeros((), device=out.boxes.device), {}
    if out.first_logit is not None:
        part, report["iou_first"] = _stage(out.first_logit, None, out.first_boxes, truths, weights.first_per_box, weights,
                                           out.places, count)
        loss = loss + part
    for i, layer in enumerate(out.layers):
        part, report[f"iou_{i}"] = _stage(layer.coco, layer.sa1b, layer.boxes, truths, weights.layer_per_box, weights,
                                          None, count)
        loss = loss + part
    return loss, report


def _stage(objectness: Tensor, quality: Tensor | None, predicted: Tensor, truths: list[Truth], per_box: int,
           weights: Weights, places: Tensor | None, count: int) -> tuple[Tensor, float]:
    hard, soft = torch.zeros_like(objectness), torch.zeros_like(objectness)
    share = torch.ones_like(objectness)
    l1 = giou_loss = predicted.sum() * 0
    best_total = 0.0
    for b, truth in enumerate(truths):
        share[b] = truth.background * outside_crowds(predicted[b].detach(), truth.crowds)
        if not len(truth.boxes):
            continue
        query, which = assign(objectness[b].detach(), predicted[b].detach(), truth.boxes, per_box, places)
        iou, giou = iou_and_giou(corners(predicted[b, query]), corners(truth.boxes[which]))
        per_query = 1 / torch.bincount(which, minlength=len(truth.boxes))[which].float()  # every box weighs the same
        l1 = l1 + ((predicted[b, query] - truth.boxes[which]).abs().sum(-1) * per_query).sum()
        giou_loss = giou_loss + ((1 - giou) * per_query).sum()
        iou = iou.detach()
        best = iou.new_zeros(len(truth.boxes)).scatter_reduce_(0, which, iou, "amax")
        # The best query of a box is worth 1, the others by their share of its overlap.
        hard[b, query] = (iou / best[which].clamp(min=1e-6)) ** 1.5
        soft[b, query] = iou
        share[b, query] = 1.0
        best_total += float(best.sum())
    score = _quality_focal(objectness, hard, share)
    if quality is not None:
        score = score + _quality_focal(quality, soft, share)
    return (weights.score * score + weights.l1 * l1 + weights.giou * giou_loss) / count, best_total / count


def _quality_focal(logit: Tensor, target: Tensor, share: Tensor) -> Tensor:
    error = (target - logit.sigmoid()).abs() ** 2
    return (error * share * F.binary_cross_entropy_with_logits(logit, target, reduction="none")).sum()


def outside_crowds(predicted: Tensor, crowds: Tensor) -> Tensor:
    """0 for boxes that lie mostly in a crowd region (they may well be right), else 1: [Q]."""
    if not len(crowds):
        return torch.ones(len(predicted), device=predicted.device)
    a, b = corners(predicted)[:, None], corners(crowds)[None]
    inter = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    own = (predicted[:, 2] * predicted[:, 3])[:, None].clamp(min=1e-9)
    return (~((inter / own) > 0.5).any(-1)).float()
