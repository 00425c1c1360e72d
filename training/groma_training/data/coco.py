"""COCO: instances and captions JSON; also the plain lists some repositories keep instead."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from groma_training.data.photo import Object, Photo

COCO_80 = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign parking_meter bench "
    "bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee skis "
    "snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle wine_glass cup fork "
    "knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch potted_plant bed "
    "dining_table toilet tv laptop mouse remote keyboard cell_phone microwave oven toaster sink refrigerator book clock "
    "vase scissors teddy_bear hair_drier toothbrush"
).split()
COCO_80 = tuple(name.replace("_", " ") for name in COCO_80)


def read_instances(annotations: str | Path, photos: str | Path, label_set: str = "", exhaustive: bool = True,
                   ) -> Iterator[Photo]:
    """``instances_*.json``, COCO's own or another set's in its form (LVIS, Objects365, V3Det, a user's); photos that are not
    in the folder are passed over.  Without ``label_set`` the file's categories say whether it is COCO's."""
    raw = json.loads(Path(annotations).read_text())
    names = {c["id"]: c["name"] for c in raw["categories"]}
    label_set = label_set or ("coco-80" if set(names.values()) == set(COCO_80) else Path(annotations).stem)
    boxes = defaultdict(list)
    for a in raw["annotations"]:
        x, y, w, h = a["bbox"]
        if w > 0 and h > 0:
            boxes[a["image_id"]].append(Object((x, y, x + w, y + h), names[a["category_id"]], bool(a.get("iscrowd"))))
    licences = {item["id"]: item.get("name", "") for item in raw.get("licenses", [])}
    for image in raw["images"]:
        # LVIS names the photo's address instead.
        path = Path(photos) / (image.get("file_name") or image["coco_url"].rsplit("/", 1)[-1])
        if path.exists():
            yield Photo(id=coco_id(path.stem), file=str(path), width=image["width"], height=image["height"],
                        objects=boxes[image["id"]], exhaustive=exhaustive, label_set=label_set,
                        licence=licences.get(image.get("license"), ""))


def read_captions(annotations: str | Path) -> dict[str, list[str]]:
    """``captions_*.json`` -> photo id -> captions."""
    out = defaultdict(list)
    for a in json.loads(Path(annotations).read_text())["annotations"]:
        out[coco_id(str(a["image_id"]))].append(" ".join(a["caption"].split()))
    return dict(out)


def coco_id(stem: str) -> str:
    """"COCO_val2014_000000000139" or "139" -> "coco-000000000139"; other sets' photos keep their names."""
    number = stem.split("_")[-1]
    return f"coco-{int(number):012d}" if number.isdigit() else stem


def read_box_list(path: str | Path, photos: dict[str, tuple[str, int, int]]) -> Iterator[Photo]:
    """Lines "any/path/000000000139.jpg x0,y0,x1,y1,class …" with classes 0..79.

    photos: id -> (file, width, height).  Such lists carry no crowd flags: ``looks_like_crowd`` finds them.
    """
    for line in Path(path).read_text().splitlines():
        name, *items = line.split()
        key = coco_id(Path(name).stem)
        if key not in photos:
            continue
        file, width, height = photos[key]
        objects = []
        for item in items:
            x0, y0, x1, y1, kind = (int(v) for v in item.split(","))
            if x1 > x0 and y1 > y0:
                objects.append(Object((x0, y0, x1, y1), COCO_80[kind]))
        if objects and looks_like_crowd(objects):
            objects[-1].iscrowd = True
        yield Photo(id=key, file=file, width=width, height=height, objects=objects, exhaustive=True, label_set="coco-80")


def looks_like_crowd(objects: list[Object], enough: int = 12, large: float = 1.5) -> bool:
    """Whether the last box is a crowd region: it follows at least ``enough`` boxes of its category and is out of the
    list's order by category, or at least ``large`` times their median area."""
    last = objects[-1]
    same = [o for o in objects[:-1] if o.label == last.label]
    if len(same) < enough:
        return False
    out_of_order = len(objects) > 1 and objects[-2].label != last.label
    return out_of_order or _area(last) >= large * statistics.median(_area(o) for o in same)


def _area(o: Object) -> float:
    return (o.box[2] - o.box[0]) * (o.box[3] - o.box[1])
