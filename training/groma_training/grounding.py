"""Answers: produced tokens -> segments of text, some tied to regions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from groma_training.tokens import NOT_TEXT

_INDEX = re.compile(r"<r(\d+)>")


@dataclass
class Segment:
    """Plain text, or with ``phrase`` a named (or, in bare lists, unnamed) group of regions."""

    text: str
    phrase: bool = False
    regions: list[int] = field(default_factory=list)


def parse(pieces: Sequence[str], num_regions: int) -> list[Segment]:
    """Lenient: an unclosed phrase becomes text, unknown regions are dropped, an empty group is dropped, stray special
    tokens are dropped."""
    out: list[Segment] = []
    text, open_phrase, i = "", False, 0

    def flush() -> None:
        nonlocal text
        if text.strip():
            out.append(Segment(text.strip()))
        text = ""

    while i < len(pieces):
        piece = pieces[i]
        if piece == "<p>":
            flush()
            open_phrase = True
        elif piece in ("</p>", "<roi>"):
            name = text.strip() if open_phrase else ""
            if open_phrase:
                text = ""
            else:
                flush()
            open_phrase = False
            listed = piece == "<roi>"
            if piece == "</p>" and i + 1 < len(pieces) and pieces[i + 1] == "<roi>":
                listed, i = True, i + 1
            found = []
            while listed and i + 1 < len(pieces) and (match := _INDEX.fullmatch(pieces[i + 1])):
                found.append(int(match[1]))
                i += 1
            if listed and i + 1 < len(pieces) and pieces[i + 1] == "</roi>":
                i += 1
            found = [k for k in found if k < num_regions]
            if name or found:
                out.append(Segment(name, True, found))
        elif piece not in NOT_TEXT and not _INDEX.fullmatch(piece):
            text += piece
        i += 1
    flush()
    return out
