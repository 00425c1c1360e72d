"""Example answers for a model card, each a photo with its boxes drawn: what the engine says, beside what a person thinks of it.

    python -m groma_training.evaluate.examples --groma target/release/groma --model PACK --photos SAMPLES \
        --list models/groma-s/examples.toml --card models/groma-s/MODEL_CARD.md

The list names photo, task, text and verdict of every example; verdicts are written by hand after looking, answers never are.
"""

from __future__ import annotations

import argparse
import io
import re
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from groma_training.data.photo import Photo
from groma_training.evaluate.card import write_part
from groma_training.evaluate.engines import Answer, CommandLineEngine
from groma_training.files import write_whole

WIDTH, QUALITY = 420, 80  # of a committed overlay: about 30 KB


@dataclass
class Example:
    photo: str
    task: str  # detect, locate, caption, describe or ask
    verdict: str
    text: str = ""
    box: tuple[float, ...] = ()  # x0, y0, x1, y1 in pixels, for "caption"

    def question(self) -> str:
        """As one would type it on the command line."""
        text = f' "{self.text}"' if self.text else ""
        box = f" --box {','.join(f'{v:g}' for v in self.box)}" if self.box else ""
        return f"`groma {self.task} {self.photo}{text}{box}`"


def said(answer: Answer) -> str:
    """One line: phrases bold, the regions that they cite in brackets."""
    parts = []
    for s in answer.segments:
        if text := s.text.strip():
            parts.append(f"**{text}**" if s.phrase else text)
        if s.regions:
            parts.append(f"[{', '.join(map(str, s.regions))}]")
    line = re.sub(r" ([.,;:!?])", r"\1", " ".join(parts))
    return line.replace("|", "\\|") or "(nothing)"


def small(png: Path) -> bytes:
    """An overlay as JPEG of at most ``WIDTH`` pixels."""
    with Image.open(png) as image:
        image = image.convert("RGB")
        image.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        image.save(out, "JPEG", quality=QUALITY, optimize=True)
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groma", required=True, help="path of the command line")
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", required=True, type=Path, help="folder of the photos that the list names")
    parser.add_argument("--list", required=True, type=Path)
    parser.add_argument("--card", required=True, type=Path, help="model card whose examples are replaced")
    options = parser.parse_args()
    pictures, rows = options.card.parent / "examples", []
    for i, raw in enumerate(tomllib.loads(options.list.read_text())["example"], 1):
        example = Example(**raw)
        path = options.photos / example.photo
        with Image.open(path) as image:
            photo = Photo(example.photo, str(path), *image.size)
        with tempfile.TemporaryDirectory() as folder:
            overlay = Path(folder) / "overlay.png"
            engine = CommandLineEngine(options.groma, options.model, options=["--overlay", str(overlay)])
            box = torch.tensor([example.box] if example.box else []).reshape(-1, 4)
            answer = engine.ask(photo, example.task, example.text, box)
            picture = small(overlay)
        name = f"{i:02}-{path.stem}-{example.task}.jpg"
        write_whole(pictures / name, lambda part, picture=picture: part.write_bytes(picture))
        rows.append(f"| ![{example.photo}](examples/{name}) | {example.question()} | {said(answer)} | {example.verdict} |")
        print(example.question(), "->", said(answer), flush=True)
    head = ["| photo | question | answer | verdict |", "|---|---|---|---|"]
    write_part(options.card, "examples", "\n".join([*head, *rows]))


if __name__ == "__main__":
    main()
