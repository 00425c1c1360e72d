"""The one record that every reader yields and every stage reads."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image

Xyxy = tuple[float, float, float, float]


@dataclass
class Object:
    """A boxed thing; ``box`` is (x0, y0, x1, y1) in pixels of the stored photo."""

    box: Xyxy
    label: str
    iscrowd: bool = False


@dataclass
class Phrase:
    """Words tied to boxes: an entity of a caption, a referring expression, or a region's description."""

    text: str
    boxes: list[Xyxy]
    kind: str = "entity"
    how: str = ""


@dataclass
class Turn:
    """One question and its answer; ``[k]`` marks stand for ``boxes[k]`` (see ``templates.conversation``)."""

    question: str
    answer: str
    boxes: list[Xyxy] = field(default_factory=list)


@dataclass
class Photo:
    """``file`` is a path, or with ``shard`` a member of that tar file."""

    id: str
    file: str
    width: int
    height: int
    objects: list[Object] = field(default_factory=list)
    exhaustive: bool = False
    label_set: str = ""
    captions: list[str] = field(default_factory=list)
    phrases: list[Phrase] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    shard: str = ""
    source: str = ""
    origin: str = ""
    licence: str = ""

    @classmethod
    def from_dict(cls, raw: dict) -> Photo:
        known = {k: v for k, v in raw.items() if k in cls.__dataclass_fields__ and v is not None}
        known["objects"] = [Object(tuple(o["box"]), o["label"], bool(o.get("iscrowd"))) for o in raw.get("objects", [])]
        known["phrases"] = [Phrase(p["text"], [tuple(b) for b in p["boxes"]], p.get("kind", "entity"), p.get("how", ""))
                            for p in raw.get("phrases", [])]
        known["turns"] = [Turn(t["question"], t["answer"], [tuple(b) for b in t.get("boxes", [])])
                          for t in raw.get("turns", [])]
        return cls(**known)

    def to_dict(self) -> dict:
        return asdict(self)


def read_jsonl(path: str | Path) -> Iterator[Photo]:
    """One photo a line, as ``write_jsonl`` makes them; a relative ``shard`` or ``file`` is meant beside the list."""
    root = Path(path).resolve().parent
    with open(path) as lines:
        for line in lines:
            photo = Photo.from_dict(json.loads(line))
            if photo.shard:
                photo.shard = str(root / photo.shard)
            else:
                photo.file = str(root / photo.file)
            yield photo


def write_jsonl(photos: Iterable[Photo], path: str | Path) -> int:
    """Writes all or nothing; returns the number of lines."""
    part, count = Path(f"{path}.part"), 0
    part.parent.mkdir(parents=True, exist_ok=True)
    with open(part, "w") as out:
        for photo in photos:
            out.write(json.dumps(photo.to_dict(), ensure_ascii=False, separators=(",", ":")) + "\n")
            count += 1
    os.replace(part, path)
    return count


class PhotoStore:
    """Opens photos from folders and tar shards; a shard's members are indexed once."""

    def __init__(self) -> None:
        self._members: dict[str, dict[str, tuple[int, int]]] = {}

    def bytes(self, photo: Photo) -> bytes:
        if not photo.shard:
            return Path(photo.file).read_bytes()
        if photo.shard not in self._members:
            with tarfile.open(photo.shard) as tar:
                self._members[photo.shard] = {Path(m.name).name: (m.offset_data, m.size) for m in tar if m.isfile()}
        offset, size = self._members[photo.shard][photo.file]
        with open(photo.shard, "rb") as f:
            f.seek(offset)
            return f.read(size)

    def open(self, photo: Photo) -> Image.Image:
        """8-bit RGB; alpha is dropped, grey replicated, EXIF orientation ignored (as upstream)."""
        return Image.open(io.BytesIO(self.bytes(photo))).convert("RGB")
