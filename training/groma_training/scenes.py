"""Stage 0: scenes made of words alone.

A region's token is its noun's (and colour's) embedding plus noise plus the region encoder's own position branch, so the
decoder learns to bind ids, to look regions up and to answer in the grammar before a single photo is encoded.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from groma_training.templates import Scene, listed_kinds
from groma_training.vocabulary import COLOURS, NOUNS

COLOUR_SHARE, COLOUR_STRENGTH = 0.4, 0.6


@dataclass
class MadeUp:
    """``names`` of region k, its colour or "", its box; regions are in random order already."""

    names: list[str]
    colours: list[str]
    boxes: list[tuple[float, float, float, float]]

    def scene(self, absent: tuple[str, ...]) -> Scene:
        """For ``templates.questions``: every object is its own region."""
        return Scene(self.names, self.boxes, list(range(len(self.names))), captions=[listed_kinds(Counter(self.names))],
                     phrases=self.phrases(), vocabulary=absent)

    def phrases(self) -> list[tuple[str, int]]:
        """"the red car", where that is said of one region only."""
        pairs = Counter(zip(self.colours, self.names, strict=True))
        return [(f"the {c} {n}", i) for i, (c, n) in enumerate(zip(self.colours, self.names, strict=True))
                if c and pairs[c, n] == 1]


def make(most: int, rng: random.Random) -> MadeUp:
    """Between half of ``most`` and ``most`` regions, now and then several of a kind."""
    count = max(3, int(most * rng.uniform(0.5, 1)))
    repeats = [1, 1, 1, 1, 1, 1, 1, 2, 3] if most < 20 else [1, 1, 1, 1, 2, 2, 3, 4, 6]
    rows = []
    while len(rows) < count:
        noun = rng.choice(NOUNS)
        for _ in range(rng.choice(repeats)):
            w, h = rng.uniform(0.04, 0.6) ** 1.3, rng.uniform(0.04, 0.6) ** 1.3
            box = (rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2), w, h)
            rows.append((noun, rng.choice(COLOURS) if rng.random() < COLOUR_SHARE else "", box))
    rows = rows[:count]
    rng.shuffle(rows)
    return MadeUp(*(list(column) for column in zip(*rows, strict=True)))


def tokens(made: MadeUp, vectors: dict[str, Tensor], noise: float) -> Tensor:
    """What the regions show, [R,H]; vectors: word -> embedding less the nouns' centre."""
    out = torch.stack([vectors[n] + (COLOUR_STRENGTH * vectors[c] if c else 0)
                       for n, c in zip(made.names, made.colours, strict=True)])
    scale = torch.stack(list(vectors.values())).norm(dim=1).mean() / out.shape[1] ** 0.5
    return out + noise * scale * torch.randn_like(out)
