"""Conversation files: LLaVA and ShareGPT4V style JSON (plain), and Groma Instruct JSON (grounded)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from groma_training.data.photo import Photo, Turn

_ROI = re.compile(r"<roi>((?:\s*<r\d+>)+)\s*</roi>")
_INDEX = re.compile(r"<r(\d+)>")


def read_llava(path: str | Path, photos: str | Path) -> Iterator[Photo]:
    """Entries {"id", "image", "conversations": [{"from": "human"|"gpt", "value"}…]}; entries without an image, and
    photos that are not in the folder, are passed over."""
    for entry in json.loads(Path(path).read_text()):
        file = Path(photos) / entry.get("image", "")
        if not entry.get("image") or not file.is_file():
            continue
        texts = [m["value"].replace("<image>", "").strip() for m in entry["conversations"]]
        turns = [Turn(q, a) for q, a in zip(texts[::2], texts[1::2], strict=False)]
        with Image.open(file) as image:
            width, height = image.size
        yield Photo(id=f"llava-{entry.get('id', file.stem)}", file=str(file), width=width, height=height, turns=turns)


def read_groma_instruct(path: str | Path, photos: str | Path) -> Iterator[Photo]:
    """Groma Instruct: entries {"id"?, "file_name"|"image", "width", "height", "boxes": [[x0,y0,x1,y1]…] in pixels,
    "conversation": [{"from"|"role", "value"|"content"}…]}; answers cite ``<roi><rk></roi>`` with k an index into
    ``boxes``.  The citations become ``[k]`` marks of ``Turn``."""
    for entry in json.loads(Path(path).read_text()):
        name = entry.get("file_name") or entry["image"]
        boxes = [tuple(b) for b in entry["boxes"]]
        messages = entry.get("conversation") or entry["conversations"]
        texts = [(m.get("value") or m.get("content") or "").replace("[grounding]", "").strip() for m in messages]
        turns = [Turn(_marked(q), _marked(a), boxes) for q, a in zip(texts[::2], texts[1::2], strict=False)]
        yield Photo(id=str(entry.get("id") or Path(name).stem), file=str(Path(photos) / name), width=entry["width"],
                    height=entry["height"], turns=turns)


def write_groma_instruct(photos: Iterator[Photo] | list[Photo], path: str | Path) -> None:
    """The inverse of ``read_groma_instruct``; all turns of a photo must share their boxes."""
    out = []
    for p in photos:
        messages = []
        for t in p.turns:
            messages.append({"from": "human", "value": "[grounding]" + _cited(t.question)})
            messages.append({"from": "gpt", "value": _cited(t.answer)})
        out.append({"id": p.id, "file_name": Path(p.file).name, "width": p.width, "height": p.height,
                    "boxes": [list(b) for b in (p.turns[0].boxes if p.turns else [])], "conversation": messages})
    part = Path(f"{path}.part")
    part.write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")
    part.replace(path)


def _marked(text: str) -> str:
    return _ROI.sub(lambda m: "".join(f"[{k}]" for k in _INDEX.findall(m[1])), text)


def _cited(text: str) -> str:
    def group(m: re.Match) -> str:
        return "<roi>" + "".join(f"<r{k}>" for k in re.findall(r"\d+", m[0])) + "</roi>"

    return re.sub(r"(?:\[\d+\])+", group, text)
