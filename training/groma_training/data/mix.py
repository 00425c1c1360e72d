"""In which order, and how often, photos are shown."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from groma_training.data.photo import Photo

ENOUGH = 15  # objects; photos with more are shown no oftener


def shares(photos: Sequence[Photo], power: float) -> list[float]:
    """How often each photo is shown in one round, once on average: in proportion to its number of objects to this power.
    A step costs the same whatever a photo holds, and one with nine objects teaches more than one with two; with 0 all
    are equal."""
    weights = [min(max(len(p.objects), 1), ENOUGH) ** power for p in photos]
    mean = sum(weights) / len(weights)
    return [w / mean for w in weights]


def endless(photos: Sequence[Photo], power: float, rng: random.Random) -> Iterator[Photo]:
    """Rounds over all photos, each in a new order."""
    often = shares(photos, power)
    while True:
        times = (int(share) + (rng.random() < share % 1) for share in often)
        shown = [p for p, n in zip(photos, times, strict=True) for _ in range(n)]
        rng.shuffle(shown)
        yield from shown
