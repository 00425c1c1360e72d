"""The measures themselves: pure functions over boxes, and figures with their counts and 95 % intervals.

Boxes here are corners in pixels of the stored photo, unless said otherwise.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from groma_training.boxes import area, iou_matrix

SMALL, MEDIUM = 32.0**2, 96.0**2  # COCO's borders, in px of the stored photo
THRESHOLDS = [0.5 + 0.05 * i for i in range(10)]
BOOTSTRAPS = 1000


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval and on how many photos and questions (boxes, phrases, …) it was taken."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    photos: int
    questions: int
    note: str = ""

    def row(self) -> str:
        """One line of the Markdown table."""
        if self.value is None:
            return f"| {self.name} | — | — | {self.photos} | {self.questions} | {self.note} |"
        return (f"| {self.name} | {self.value:.3f} | {self.low:.3f}–{self.high:.3f} | {self.photos} | {self.questions} "
                f"| {self.note} |")


def ratio(name: str, per_photo: Sequence[tuple[float, float]], note: str = "") -> Figure:
    """Sum of hits over sum of trials; the interval resamples photos, because questions of one photo hang together."""
    asked = [p for p in per_photo if p[1] > 0]
    return _resampled(name, asked, lambda rows: _share(sum(h for h, _ in rows), sum(n for _, n in rows)),
                      int(sum(n for _, n in asked)), note)


def f1(name: str, per_photo: Sequence[tuple[int, int, int]], note: str = "") -> Figure:
    """per_photo: (true positives, false positives, misses)."""
    def value(rows: Sequence[tuple[int, int, int]]) -> float:
        hits, wrong, missed = (sum(column) for column in zip(*rows, strict=True))
        return _share(2 * hits, 2 * hits + wrong + missed)

    return _resampled(name, list(per_photo), value, sum(h + m for h, _, m in per_photo), note)


def perplexity(name: str, per_photo: Sequence[tuple[float, int]], note: str = "") -> Figure:
    """per_photo: (sum of negative log likelihoods, tokens)."""
    def value(rows: Sequence[tuple[float, int]]) -> float:
        return math.exp(min(20.0, _share(sum(a for a, _ in rows), sum(n for _, n in rows))))

    return _resampled(name, [p for p in per_photo if p[1]], value, sum(n for _, n in per_photo), note)


def _resampled(name: str, rows: list, value: Callable, questions: int, note: str) -> Figure:
    if not rows:
        return Figure(name, None, None, None, 0, 0, note)
    rng = random.Random(0)
    draws = sorted(value(rng.choices(rows, k=len(rows))) for _ in range(BOOTSTRAPS))
    return Figure(name, value(rows), draws[int(0.025 * BOOTSTRAPS)], draws[int(0.975 * BOOTSTRAPS) - 1], len(rows),
                  questions, note)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def best_overlaps(truth: Tensor, found: Tensor) -> Tensor:
    """Each true box's largest IoU with any found box: [N,4], [M,4] -> [N]."""
    if not len(found):
        return truth.new_zeros(len(truth))
    return iou_matrix(truth, found).nan_to_num(0).max(1).values


def average_recall(best: Tensor) -> float:
    """Mean over IoU 0.50 … 0.95 of the number of boxes found (not yet divided by their number)."""
    return float(sum((best >= t - 1e-6).float().sum() for t in THRESHOLDS)) / len(THRESHOLDS)


def size_class(truth: Tensor) -> list[str]:
    """"small", "medium" or "large" by area."""
    return ["small" if a < SMALL else "medium" if a < MEDIUM else "large" for a in area(truth).tolist()]


def greedy_matches(truth: Tensor, found: Tensor, threshold: float = 0.5) -> int:
    """How many pairs form when the best overlapping pair is taken again and again."""
    if not len(truth) or not len(found):
        return 0
    overlap, count = iou_matrix(truth, found).nan_to_num(0), 0
    while True:
        best = int(overlap.argmax())
        i, j = divmod(best, overlap.shape[1])
        if float(overlap[i, j]) < threshold:
            return count
        overlap[i, :], overlap[:, j] = -1, -1
        count += 1


def as_many_recall(truth: Tensor, found: Tensor) -> float:
    """LVIS-Ground's AS-MANY protocol: the first m of the found boxes against the m true ones, the average recall over the
    usual thresholds of one (photo, category) question.  Found boxes come in the order of citation."""
    found = found[: len(truth)]
    return sum(greedy_matches(truth, found, t) for t in THRESHOLDS) / len(THRESHOLDS) / max(1, len(truth))
