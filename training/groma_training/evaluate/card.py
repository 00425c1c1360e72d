"""The table in the model card, between two marks, replaced whole at every measurement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from groma_training.evaluate.metrics import Figure
from groma_training.files import write_text

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def table(figures: Sequence[Figure], caption: str) -> str:
    head = ["| measure | value | 95 % interval | photos | questions | note |", "|---|---|---|---|---|---|"]
    return "\n".join([BEGIN, "", f"{caption}. Intervals resample photos.", "", *head, *(f.row() for f in figures), "", END])


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


def write_table(card: Path, text: str) -> None:
    """Replaces what stands between the marks; a card without marks gets the table at its end."""
    old = card.read_text() if card.exists() else ""
    if BEGIN in old and END in old:
        new = old[: old.index(BEGIN)] + text + old[old.index(END) + len(END) :]
    else:
        new = old.rstrip("\n") + ("\n\n" if old else "") + text + "\n"
    write_text(card, new)
