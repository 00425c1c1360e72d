"""Phrases out of human captions, for photos whose captions nobody has tied to boxes.

The words are human; the tie is by rule: a noun phrase whose head names a category that has exactly one box in the photo,
and no crowd, means that box.  So no phrase ever has to tell two objects of a category apart.
"""

from __future__ import annotations

import re

from groma_training.data.photo import Photo, Phrase
from groma_training.templates import ground_caption

TIED = re.compile(r"<p>(?P<text>[^<]*)</p><roi><r(?P<object>\d+)></roi>")


def entities(photo: Photo) -> list[Phrase]:
    """The phrases of all captions, each once; none of a photo whose boxes are not all there."""
    if not photo.exhaustive:
        return []
    kinds = [o.label for o in photo.objects]
    alone = {o.label: [i] for i, o in enumerate(photo.objects) if kinds.count(o.label) == 1 and not o.iscrowd}
    found: dict[str, Phrase] = {}
    for caption in photo.captions:
        for tied in TIED.finditer(ground_caption(caption, alone)[0]):
            box = photo.objects[int(tied["object"])].box
            found.setdefault(tied["text"].lower(), Phrase(tied["text"], [box], "entity", "caption noun phrase, only box"))
    return list(found.values())
