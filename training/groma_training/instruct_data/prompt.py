"""What the vision model is asked, and how its answer becomes checked turns."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from groma_training.data.photo import Photo, Turn

SYSTEM = """You write training conversations for a visual assistant that points at what it talks about.
You see a photo whose regions carry numbers, a list of the regions, and facts people wrote about the photo.
Write {turns} questions a curious person could ask about the photo and their answers, as a JSON list
[{{"question": …, "answer": …}}, …] and nothing else. Rules:
- Every visible thing an answer names is written <p>its name</p> followed at once by the numbers of all its regions, each in
  square brackets: "<p>Two dogs</p>[1][4] run after <p>a ball</p>[0]."
- Use only numbers from the list. Things without a region are named without <p>.
- Questions mention no numbers, no regions and no tags. Never mention the drawn boxes or numbers themselves.
- The conversation starts with a question about the whole scene; later ones go into details, relations, or reasons. Say what can
  be seen; do not guess names of people."""

_MARK = re.compile(r"\[(\d+)\]")
_GROUP = re.compile(r"<p>([^<>]+)</p>\s*(\[\d+\](?:\s*\[\d+\])*)")


@dataclass(frozen=True)
class Rejected(Exception):
    """Why an answer was not taken; the reason is kept, so that rejections can be counted."""

    reason: str


def request_text(photo: Photo, labels: Sequence[str], questions: Sequence[tuple[str, str]] = (), example: str = "") -> str:
    """Regions with label and place (in thousandths of the photo), captions, and question-answer pairs as context."""
    lines = ["Regions (number: kind, box as x0 y0 x1 y1 in thousandths):"]
    for k, (o, label) in enumerate(zip(photo.objects, labels, strict=True)):
        x0, y0, x1, y1 = o.box
        place = [round(1000 * v / n) for v, n in ((x0, photo.width), (y0, photo.height), (x1, photo.width), (y1, photo.height))]
        lines.append(f"{k}: {label}, {' '.join(map(str, place))}")
    if photo.captions:
        lines += ["", "Captions:", *(f"- {c}" for c in photo.captions)]
    if questions:
        lines += ["", "Known questions and answers:", *(f"- {q} {a}" for q, a in questions)]
    if example:
        lines += ["", "An example of the style:", example]
    return "\n".join(lines)


def parse_answer(text: str, regions: int, fewest_turns: int = 2, fewest_citations: int = 2) -> list[Turn]:
    """The model's JSON -> turns whose ``[k]`` marks are regions of the photo; raises ``Rejected`` when a rule is broken."""
    found = re.search(r"\[\s*\{.*\}\s*\]", text, re.DOTALL)
    if not found:
        raise Rejected("no JSON list")
    try:
        raw = json.loads(found[0])
        pairs = [(str(t["question"]).strip(), str(t["answer"]).strip()) for t in raw]
    except (ValueError, KeyError, TypeError):
        raise Rejected("malformed JSON") from None
    if len(pairs) < fewest_turns:
        raise Rejected("too few turns")
    turns, citations = [], 0
    for question, answer in pairs:
        if not question or not answer:
            raise Rejected("empty text")
        if _MARK.search(question) or "<p>" in question:
            raise Rejected("marks in a question")
        if re.search(r"\b(bounding box|numbered|region \d|marked)\b", answer, re.IGNORECASE):
            raise Rejected("speaks about the marks")
        cited = [int(k) for k in _MARK.findall(answer)]
        if any(k >= regions for k in cited):
            raise Rejected("unknown region")
        grouped = sum(len(_MARK.findall(m[1])) for m in _GROUP.findall(answer))
        if grouped != len(cited) or answer.count("<p>") != len(_GROUP.findall(answer)):
            raise Rejected("a phrase and its regions are torn apart")
        citations += len(cited)
        turns.append(Turn(question, _GROUP.sub(lambda m: f"<p>{m[1].strip()}</p>" + "".join(m[2].split()), answer)))
    if citations < fewest_citations:
        raise Rejected("hardly grounded")
    return turns
