"""Which categories a photo was searched for: only their absence can be taught and measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from groma_training.data.coco import COCO_80
from groma_training.data.photo import Photo
from groma_training.data.voc import VOC_20

KNOWN = {"coco-80": COCO_80, "voc-20": VOC_20}


def label_sets(photos: Iterable[Photo]) -> dict[str, tuple[str, ...]]:
    """Label set -> its categories: the known lists, and for every other one all labels that its photos have."""
    seen = defaultdict(set)
    for p in photos:
        if p.exhaustive and p.label_set and p.label_set not in KNOWN:
            seen[p.label_set] |= {o.label for o in p.objects}
    return {**KNOWN, **{name: tuple(sorted(labels)) for name, labels in seen.items()}}
