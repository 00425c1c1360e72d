"""YOLO folders: one text file a photo with lines "class cx cy w h", all in 0..1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from groma_training.data.photo import Object, Photo

SUFFIXES = {".jpg", ".jpeg", ".png"}


def read_yolo(images: str | Path, labels: str | Path, names: Sequence[str], id_format: str = "{stem}", label_set: str = "",
              ) -> Iterator[Photo]:
    """``id_format`` may use {stem}.  A photo without a label file has no objects (that is YOLO's convention)."""
    for path in sorted(Path(images).iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        with Image.open(path) as image:
            width, height = image.size
        objects, text = [], Path(labels) / f"{path.stem}.txt"
        for line in text.read_text().splitlines() if text.exists() else []:
            kind, cx, cy, w, h = line.split()[:5]
            cx, cy, w, h = float(cx) * width, float(cy) * height, float(w) * width, float(h) * height
            objects.append(Object((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), names[int(kind)]))
        yield Photo(id=id_format.format(stem=path.stem), file=str(path), width=width, height=height, objects=objects,
                    exhaustive=True, label_set=label_set)
