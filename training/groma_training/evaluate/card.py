"""Made parts of the model card, each between two marks and replaced whole: the table of measures, the example answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from groma_training.evaluate.metrics import Figure
from groma_training.files import write_text


def table(figures: Sequence[Figure], caption: str) -> str:
    head = ["| measure | value | 95 % interval | photos | questions | note |", "|---|---|---|---|---|---|"]
    return "\n".join([f"{caption}. Intervals resample photos.", "", *head, *(f.row() for f in figures)])


def disagreements(figures: Sequence[Figure], others: Sequence[dict], most: float) -> list[str]:
    """What another engine measured (its ``--out``) beside ours, where both did and differ by more than ``most``."""
    there = {o["name"]: o for o in others}
    out = []
    for f in figures:
        other = there.get(f.name)
        if other is None or f.value is None or other["value"] is None:
            continue
        same = (f.photos, f.questions) == (other["photos"], other["questions"])
        if not same or abs(f.value - other["value"]) > most:
            out.append(f"{f.name.strip()}: {f.value:.3f} of {f.questions}, there {other['value']:.3f} of {other['questions']}")
    return out


def write_part(card: Path, name: str, text: str) -> None:
    """Replaces what stands between the marks of ``name``; a card without them gets the part at its end."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = f"{begin}\n\n{text}\n\n{end}"
    old = card.read_text() if card.exists() else ""
    if begin in old and end in old:
        new = old[: old.index(begin)] + text + old[old.index(end) + len(end) :]
    else:
        new = old.rstrip("\n") + ("\n\n" if old else "") + text + "\n"
    write_text(card, new)
