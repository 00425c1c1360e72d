"""Flickr30k Entities: captions whose noun phrases are tied to boxes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from groma_training.data.photo import Photo, Phrase, Turn

# [/EN#283585/people/others A man] in [/EN#283586/clothing a blue shirt]
_ENTITY = re.compile(r"\[/EN#(\d+)((?:/\w+)+) ([^\]]+)\]")
WITHOUT_BOX = "0"  # the id of phrases that name nothing visible


def read_flickr30k(root: str | Path, photos: str | Path, ids: Iterable[str] | None = None) -> Iterator[Photo]:
    """The folder with ``Annotations`` and ``Sentences``, one XML and one text file a photo.

    Phrases become ``phrases``; every caption becomes a grounded ``Turn`` whose ``[k]`` marks stand for its boxes.
    """
    root = Path(root)
    for path in sorted((root / "Annotations").glob("*.xml")):
        if ids is not None and path.stem not in ids:
            continue
        tree = ElementTree.parse(path)
        size = tree.find("size")
        boxes = defaultdict(list)
        for item in tree.iter("object"):
            b = item.find("bndbox")
            if b is not None:
                corner = tuple(float(b.findtext(k, "0")) for k in ("xmin", "ymin", "xmax", "ymax"))
                for name in item.iter("name"):
                    boxes[name.text].append(corner)
        captions, phrases, turns = [], {}, []
        for line in (root / "Sentences" / f"{path.stem}.txt").read_text().splitlines():
            if not line.strip():
                continue
            captions.append(_ENTITY.sub(r"\3", line).strip())
            turns.append(_grounded(line, boxes))
            for entity, _, words in _ENTITY.findall(line):
                if boxes.get(entity) and entity != WITHOUT_BOX:
                    phrases[words, entity] = Phrase(words, boxes[entity], "entity", "flickr30k-entities")
        yield Photo(id=f"flickr30k-{path.stem}", file=str(Path(photos) / f"{path.stem}.jpg"),
                    width=int(size.findtext("width", "0")), height=int(size.findtext("height", "0")), captions=captions,
                    phrases=list(phrases.values()), turns=turns)


def _grounded(line: str, boxes: dict[str, list]) -> Turn:
    used: list[tuple[float, float, float, float]] = []

    def tie(match: re.Match) -> str:
        found = boxes.get(match[1], [])
        marks = "".join(f"[{len(used) + i}]" for i in range(len(found)))
        used.extend(found)
        return f"<p>{match[3]}</p>{marks}" if found else match[3]

    return Turn("Please briefly summarize the content of this image.", _ENTITY.sub(tie, line).strip(), used)
