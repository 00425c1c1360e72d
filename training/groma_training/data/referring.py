"""RefCOCO, RefCOCO+ and RefCOCOg: the UNC/Google reference files over COCO's instances."""

from __future__ import annotations

import json
import pickle
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from groma_training.data.coco import coco_id
from groma_training.data.photo import Object, Photo, Phrase


def read_refcoco(refs: str | Path, instances: str | Path, photos: str | Path, split: str) -> Iterator[Photo]:
    """``refs(unc).p`` (or the same as JSON), ``instances.json`` and the COCO 2014 photos; one photo with all its
    referring phrases of ``split`` ("train", "val", "testA", …).

    The pickle is the published format; read only files you trust.
    """
    raw = json.loads(Path(instances).read_text())
    names = {c["id"]: c["name"] for c in raw["categories"]}
    boxes = {a["id"]: (a["image_id"], _corners(a["bbox"]), names[a["category_id"]]) for a in raw["annotations"]}
    objects, phrases = defaultdict(list), defaultdict(list)
    for image, box, label in boxes.values():
        objects[image].append(Object(box, label))
    path = Path(refs)
    entries = json.loads(path.read_text()) if path.suffix == ".json" else pickle.loads(path.read_bytes())
    for ref in entries:
        if ref["split"] == split and ref["ann_id"] in boxes:
            image, box, _ = boxes[ref["ann_id"]]
            phrases[image] += [Phrase(s["sent"].strip(), [box], "refexp", path.parent.name) for s in ref["sentences"]]
    for image in raw["images"]:
        if phrases[image["id"]]:
            file = Path(photos) / image["file_name"]
            yield Photo(id=coco_id(str(image["id"])), file=str(file), width=image["width"], height=image["height"],
                        objects=objects[image["id"]], exhaustive=True, label_set="coco-80", phrases=phrases[image["id"]])


def _corners(b: list[float]) -> tuple[float, float, float, float]:
    return b[0], b[1], b[0] + b[2], b[1] + b[3]
