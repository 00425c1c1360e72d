"""PASCAL VOC: the XML folders, and the one-line-a-photo lists made from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from groma_training.data.photo import Object, Photo

# Spelt as COCO spells them, in VOC's order.
VOC_20 = ("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
          "horse", "motorcycle", "person", "potted plant", "sheep", "couch", "train", "tv")
SPELLING = {"aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle",
            "pottedplant": "potted plant", "sofa": "couch", "tvmonitor": "tv"}


def read_voc(root: str | Path, names: list[str] | None = None, year: str = "voc2012") -> Iterator[Photo]:
    """A VOC folder with ``Annotations`` and ``JPEGImages``; objects called difficult are marked as crowd, so that
    they are neither taught nor counted."""
    root = Path(root)
    for path in sorted((root / "Annotations").glob("*.xml")):
        if names is not None and path.stem not in names:
            continue
        tree = ElementTree.parse(path)
        objects = []
        for o in tree.iter("object"):
            label, b = o.findtext("name", ""), o.find("bndbox")
            if b is None:
                continue
            box = tuple(float(b.findtext(k, "0")) for k in ("xmin", "ymin", "xmax", "ymax"))
            objects.append(Object((box[0] - 1, box[1] - 1, box[2], box[3]), SPELLING.get(label, label),
                                  o.findtext("difficult") == "1"))
        size = tree.find("size")
        yield Photo(id=f"{year}-{path.stem}", file=str(root / "JPEGImages" / f"{path.stem}.jpg"),
                    width=int(size.findtext("width", "0")), height=int(size.findtext("height", "0")),
                    objects=objects, exhaustive=True, label_set="voc-20")


def read_voc_list(path: str | Path, photos: str | Path, year: str = "voc2012") -> Iterator[Photo]:
    """Lines "2007_008218.jpg x0 y0 x1 y1 class …" with classes 0..19; photos not in the folder are passed over."""
    for line in Path(path).read_text().splitlines():
        name, *numbers = line.split()
        file = Path(photos) / name
        if not file.exists():
            continue
        values = [int(n) for n in numbers]
        objects = [Object((x0 - 1, y0 - 1, x1, y1), VOC_20[kind])
                   for x0, y0, x1, y1, kind in zip(*[iter(values)] * 5, strict=True)]
        with Image.open(file) as image:
            width, height = image.size
        yield Photo(id=f"{year}-{file.stem}", file=str(file), width=width, height=height, objects=objects,
                    exhaustive=True, label_set="voc-20")
