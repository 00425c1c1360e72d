"""Writes Groma Instruct conversations for annotated photos.

    GROMA_VISION_URL=https://…/v1 GROMA_VISION_MODEL=… GROMA_VISION_KEY=… \\
        python -m groma_training.instruct_data --photos train.jsonl --out groma_instruct.json --price 2.5 10 [--yes]

First an estimate of tokens and cost is printed; without ``--yes`` it asks before it spends.  Every answer, taken or
rejected, goes to ``<out>.log.jsonl`` at once, and the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from pathlib import Path

from groma_training.data.conversations import write_groma_instruct
from groma_training.data.photo import Photo, PhotoStore, Turn, read_jsonl
from groma_training.instruct_data.client import Endpoint, Refused, estimate
from groma_training.instruct_data.marks import draw_marks
from groma_training.instruct_data.prompt import SYSTEM, Rejected, parse_answer, request_text

MOST_REGIONS = 40  # more numbers than that nobody can read
FEWEST_REGIONS = 2
ANSWER_TOKENS = 500


def suitable(photo: Photo) -> bool:
    count = sum(not o.iscrowd for o in photo.objects)
    return FEWEST_REGIONS <= count <= MOST_REGIONS and bool(photo.captions)


def prepared(photo: Photo) -> Photo:
    """The photo with crowd regions left out, so that region k is object k."""
    photo.objects = [o for o in photo.objects if not o.iscrowd]
    return photo


def logged(log: Path) -> set[str]:
    """Ids of the photos that were asked about already."""
    return {json.loads(line)["id"] for line in log.read_text().splitlines()} if log.exists() else set()


def asked_for(photo: Photo) -> str:
    """The request: regions, captions, and as questions in context what the photo's own turns ask."""
    return request_text(photo, [o.label for o in photo.objects], [(t.question, t.answer) for t in photo.turns])


def construct(photos: list[Photo], endpoint: Endpoint, log: Path, turns: int) -> Counter:
    """Asks for every photo that the log lacks; returns the reasons why answers were (not) taken."""
    done = logged(log)
    store, tally = PhotoStore(), Counter()
    with open(log, "a") as out:
        for photo in photos:
            if photo.id in done:
                continue
            image = draw_marks(store.open(photo), [o.box for o in photo.objects])
            try:
                reply = endpoint.ask(SYSTEM.format(turns=turns), asked_for(photo), image)
                row = {"id": photo.id, "reply": reply.text, "prompt_tokens": reply.prompt_tokens,
                       "answer_tokens": reply.answer_tokens}
                parse_answer(reply.text, len(photo.objects))
                row["fate"] = "taken"
            except Rejected as why:
                row["fate"] = why.reason
            except Refused as why:  # this photo or text; the next may pass
                row = {"id": photo.id, "reply": "", "fate": f"refused: {why}"}
            tally[row["fate"]] += 1
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            out.flush()
    return tally


def collected(photos: list[Photo], log: Path) -> list[Photo]:
    """Photos with the turns of every answer in the log that passes today's checks."""
    by_id, out = {p.id: p for p in photos}, []
    for line in log.read_text().splitlines():
        row = json.loads(line)
        photo = by_id.get(row["id"])
        if photo is None:
            continue
        try:
            turns = parse_answer(row["reply"], len(photo.objects))
        except Rejected:
            continue
        boxes = [o.box for o in photo.objects]
        photo.turns = [Turn(t.question, t.answer, boxes) for t in turns]
        out.append(photo)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--price", type=float, nargs=2, default=(0.0, 0.0), metavar=("IN", "OUT"),
                        help="price of a million prompt and answer tokens")
    parser.add_argument("--yes", action="store_true", help="do not ask before spending")
    options = parser.parse_args()
    photos = [prepared(p) for p in read_jsonl(options.photos) if suitable(p)]
    random.Random(0).shuffle(photos)
    photos = photos[: options.limit]
    log = Path(f"{options.out}.log.jsonl")
    known = logged(log)
    rows = [(p.width, p.height, asked_for(p)) for p in photos if p.id not in known]
    print(json.dumps(estimate(rows, SYSTEM, ANSWER_TOKENS, tuple(options.price))), file=sys.stderr)
    if not options.yes and input("Go on? [y/N] ").strip().lower() != "y":
        raise SystemExit(1)
    for fate, count in construct(photos, Endpoint.from_environment(), log, options.turns).most_common():
        print(f"{count} {fate}", file=sys.stderr)
    kept = collected(photos, log)
    write_groma_instruct(kept, options.out)
    print(f"{len(kept)} conversations -> {options.out}")


if __name__ == "__main__":
    main()
