"""Views that frozen parts have seen, so that a step learns from many more of them than it encodes: on a plain core six times
as many in the same time.  What is kept of a view is the caller's affair."""

from __future__ import annotations

import random
from typing import Generic, TypeVar

T = TypeVar("T")


class Replay(Generic[T]):
    """At most ``most`` views; of ``spare`` that are kept no more than one is drawn, lest few are learnt by heart."""

    def __init__(self, most: int, rng: random.Random, spare: int = 1) -> None:
        self.most, self.rng, self.spare = most, rng, spare
        self.seen: list[T] = []

    def add(self, one: T) -> None:
        """When all places are taken, a new view replaces any."""
        if len(self.seen) < self.most:
            self.seen.append(one)
        else:
            self.seen[self.rng.randrange(self.most)] = one

    def draw(self, count: int) -> list[T]:
        """Up to ``count`` different views."""
        return self.rng.sample(self.seen, min(count, len(self.seen) // self.spare))
