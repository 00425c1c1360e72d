"""Visual Genome: region descriptions, each a phrase tied to one box."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from groma_training.data.photo import Photo, Phrase


def read_regions(regions: str | Path, image_data: str | Path, photos: str | Path) -> Iterator[Photo]:
    """``region_descriptions.json`` and ``image_data.json``; photos lie as <folder>/<image id>.jpg, in the folder itself or
    in VG_100K and VG_100K_2.  Boxes are cut to the photo; empty ones and empty texts are left out."""
    sizes = {item.get("image_id", item.get("id")): (item["width"], item["height"])
             for item in json.loads(Path(image_data).read_text())}
    for entry in json.loads(Path(regions).read_text()):
        key = entry["id"]
        width, height = sizes[key]
        phrases = []
        for r in entry["regions"]:
            x0, y0 = max(0, r["x"]), max(0, r["y"])
            x1, y1 = min(width, r["x"] + r["width"]), min(height, r["y"] + r["height"])
            if x1 > x0 and y1 > y0 and r["phrase"].strip():
                phrases.append(Phrase(" ".join(r["phrase"].split()), [(x0, y0, x1, y1)], "region"))
        places = [Path(photos) / folder / f"{key}.jpg" for folder in ("", "VG_100K", "VG_100K_2")]
        file = next((p for p in places if p.exists()), None)
        if file is not None and phrases:
            yield Photo(id=f"vg-{key}", file=str(file), width=width, height=height, phrases=phrases)
