"""Joins several sources into one list of training photos.

    python -m groma_training.data.gather --spec corpus.toml --out corpus.jsonl

Earlier sources win over later ones with the same id.  Ids whose hash stands in the exclusion list are dropped, and so
are photos that a difference hash finds near a held-out photo: both lists exist so that measurements stay honest.
"""

from __future__ import annotations

import argparse
import hashlib
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from groma_training.data import coco, conversations, flickr, referring, visual_genome, voc, yolo
from groma_training.data.entities import entities
from groma_training.data.photo import Photo, PhotoStore, read_jsonl, write_jsonl

NEAR_BITS = 16


def excluded_hashes(path: str | Path) -> frozenset[str]:
    return frozenset(Path(path).read_text().split())


def is_excluded(photo_id: str, hashes: frozenset[str]) -> bool:
    """The list holds the first 16 hex digits of sha256 of each id."""
    return hashlib.sha256(photo_id.encode()).hexdigest()[:16] in hashes


def difference_hash(image: Image.Image) -> np.ndarray:
    """128 bits [16] u8: which of two neighbours is brighter, along rows and along columns."""
    grey = image.convert("L")
    rows = np.asarray(grey.resize((9, 8), Image.Resampling.BILINEAR), np.int16)
    columns = np.asarray(grey.resize((8, 9), Image.Resampling.BILINEAR), np.int16)
    bits = np.concatenate([(rows[:, 1:] > rows[:, :-1]).ravel(), (columns[1:] > columns[:-1]).ravel()])
    return np.packbits(bits)


def is_near(image: Image.Image, held_out: np.ndarray, bits: int = NEAR_BITS) -> bool:
    """held_out [N,16] u8."""
    if not len(held_out):
        return False
    return int(np.bitwise_count(held_out ^ difference_hash(image)[None]).sum(1).min()) <= bits


def read_source(source: dict) -> Iterator[Photo]:
    """One ``[[source]]`` table of the specification."""
    kind = source["reader"]
    if kind == "jsonl":
        yield from read_jsonl(source["path"])
    elif kind == "coco":
        yield from coco.read_instances(source["annotations"], source["photos"], source.get("label_set", ""),
                                       source.get("exhaustive", True))
    elif kind == "coco-list":
        photos = {}
        for folder in source["photos"]:
            for path in sorted(Path(folder).glob("*.jpg")):
                if path.stem.split("_")[-1].isdigit():
                    with Image.open(path) as image:
                        photos[coco.coco_id(path.stem)] = (str(path), *image.size)
        yield from coco.read_box_list(source["path"], photos)
    elif kind == "voc":
        yield from voc.read_voc(source["path"])
    elif kind == "voc-list":
        yield from voc.read_voc_list(source["path"], source["photos"])
    elif kind == "yolo":
        yield from yolo.read_yolo(source["images"], source["labels"], source["names"], source["id"],
                                 source.get("label_set", source["name"]))
    elif kind == "refcoco":
        yield from referring.read_refcoco(source["refs"], source["annotations"], source["photos"], source["split"])
    elif kind == "visual-genome":
        yield from visual_genome.read_regions(source["regions"], source["image_data"], source["photos"])
    elif kind == "flickr30k":
        yield from flickr.read_flickr30k(source["path"], source["photos"])
    elif kind == "llava":
        yield from conversations.read_llava(source["path"], source["photos"])
    elif kind == "groma-instruct":
        yield from conversations.read_groma_instruct(source["path"], source["photos"])
    else:
        raise ValueError(f"reader {kind!r} is unknown")


def gather(spec: dict) -> tuple[list[Photo], Counter]:
    """-> photos and how many of each source were kept or dropped, and why."""
    store, tally = PhotoStore(), Counter()
    hashes = excluded_hashes(spec["exclude"]) if "exclude" in spec else frozenset()
    held = [difference_hash(store.open(p)) for p in read_jsonl(spec["held_out"])] if "held_out" in spec else []
    held = np.stack(held) if held else np.zeros((0, 16), np.uint8)
    captions: dict[str, list[str]] = {}
    for path in spec.get("captions", []):
        captions |= coco.read_captions(path)
    photos: dict[str, Photo] = {}
    for source in spec["source"]:
        for photo in read_source(source):
            name = source["name"]
            if photo.id in photos:
                tally[name, "seen before"] += 1
            elif is_excluded(photo.id, hashes):
                tally[name, "excluded"] += 1
            elif not source.get("trusted", False) and is_near(store.open(photo), held):
                tally[name, "near a held-out photo"] += 1
            else:
                tally[name, "kept"] += 1
                photo.source = photo.source or name
                photo.captions = photo.captions or captions.get(photo.id, [])
                photo.phrases = photo.phrases or (entities(photo) if spec.get("entities", False) else [])
                photos[photo.id] = photo
    return list(photos.values()), tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    photos, tally = gather(tomllib.loads(options.spec.read_text()))
    for (name, fate), count in sorted(tally.items()):
        print(f"{name}: {count} {fate}")
    print(write_jsonl(photos, options.out), "photos ->", options.out)


if __name__ == "__main__":
    main()
