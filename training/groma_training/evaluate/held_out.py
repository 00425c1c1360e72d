"""Our measures on held-out photos.

Words: *100 proposals* are the best 100 by fused score after NMS 0.6, without a threshold. *Small* is under 32² px of the
stored photo. *REC* counts phrases whose box is unique in the photo; its ceiling is how often any region of the model
fits. *Detect-all* matches greedily at IoU 0.5; a false alarm is an absent category that is given at least one region.
*Caption precision*: a cited box is right when it overlaps a box of the phrase's category by 0.5.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

import torch

from groma_training import templates
from groma_training.boxes import area, iou_matrix
from groma_training.data.labels import label_sets
from groma_training.data.photo import Photo
from groma_training.evaluate.engines import NO_BOXES, Engine, TorchEngine, in_pixels
from groma_training.evaluate.metrics import (
    Figure,
    as_many_recall,
    average_recall,
    best_overlaps,
    f1,
    greedy_matches,
    perplexity,
    ratio,
    size_class,
)
from groma_training.nouns import Nouns
from groma_training.templates import Exchange, Scene
from groma_training.vocabulary import category_of

COUNTS = (10, 50, 100)


def truth(photo: Photo, label: str | None = None) -> torch.Tensor:
    """Annotated boxes without crowd regions, [N,4] corners in pixels."""
    rows = [o.box for o in photo.objects if not o.iscrowd and (label is None or o.label == label)]
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def proposals(engine: Engine, photos: Iterable[Photo]) -> list[Figure]:
    recall, average = defaultdict(list), defaultdict(list)
    for photo in photos:
        want = truth(photo)
        if not len(want):
            continue
        found, _ = engine.proposals(photo, max(COUNTS))
        for count in COUNTS:
            best = best_overlaps(want, found[:count])
            recall[count].append((float((best >= 0.5).sum()), len(want)))
            average[count].append((average_recall(best), len(want)))
        kinds = size_class(want)
        for kind in ("small", "medium", "large"):
            own = torch.tensor([k == kind for k in kinds])
            recall[kind].append((float((best[own] >= 0.5).sum()), int(own.sum())))
    out = [ratio(f"proposer recall@0.5, {c} proposals", recall[c]) for c in reversed(COUNTS)]
    out += [ratio(f"recall@0.5, 100 proposals, {k} boxes", recall[k]) for k in ("small", "medium", "large")]
    return out + [ratio(f"proposer AR@{c} (0.50:0.95)", average[c]) for c in reversed(COUNTS)]


def region_category(engine: TorchEngine, photos: Iterable[Photo], nouns: Nouns) -> list[Figure]:
    """Annotated boxes straight into the region encoder; the nearest noun must be the box's category."""
    rows, others, person = [], [], []
    for photo in photos:
        objects = [o for o in photo.objects if not o.iscrowd and o.label in nouns.index]
        if not objects:
            continue
        size = torch.tensor([photo.width, photo.height] * 2, dtype=torch.float32)
        corner = torch.tensor([o.box for o in objects], dtype=torch.float32) / size
        centre = torch.cat([(corner[:, :2] + corner[:, 2:]) / 2, corner[:, 2:] - corner[:, :2]], 1)
        named = nouns.distances(engine.shown(photo, centre)).argmin(1)
        right = [nouns.names[i] == o.label for i, o in zip(named.tolist(), objects, strict=True)]
        rows.append((sum(right), len(right)))
        rest = [ok for ok, o in zip(right, objects, strict=True) if o.label != "person"]
        others.append((sum(rest), len(rest)))
        person.append((sum(o.label == "person" for o in objects), len(objects)))
    return [ratio("region category (nearest noun, annotated boxes)", rows),
            ratio("region category, boxes that are not persons", others),
            ratio("  rule: always \"person\"", person)]


def region_said(engine: Engine, photos: Iterable[Photo], most: int = 2, seed: int = 0) -> list[Figure]:
    """First mention: an annotated box is the first thing asked about a photo, and the answer's head noun must be its
    category.  At most ``most`` boxes a photo, drawn with a fixed seed."""
    photos, rng, rows, others = list(photos), random.Random(seed), [], []
    sets = label_sets(photos)
    for photo in photos:
        categories = frozenset(sets.get(photo.label_set, ()))
        objects = [o for o in photo.objects if not o.iscrowd and o.label in categories]
        chosen = rng.sample(objects, min(most, len(objects)))
        right = []
        for o in chosen:
            answer = engine.ask(photo, "caption", "", torch.tensor([o.box], dtype=torch.float32))
            right.append(category_of(" ".join(s.text for s in answer.segments), categories) == o.label)
        rows.append((sum(right), len(right)))
        rest = [ok for ok, o in zip(right, chosen, strict=True) if o.label != "person"]
        others.append((sum(rest), len(rest)))
    return [ratio("region category, as said of a user's box", rows), ratio("  boxes that are not persons", others)]


def referring(engine: Engine, photos: Iterable[Photo]) -> list[Figure]:
    """REC: the first region cited against the phrase's box, and the fixed rules beside it."""
    tally = defaultdict(list)
    for photo in photos:
        phrases = [p for p in photo.phrases if len(p.boxes) == 1]
        if not phrases:
            continue
        counts = Counter()
        for p in phrases:
            answer = engine.ask(photo, "locate", p.text, NO_BOXES)
            want = torch.tensor([p.boxes[0]], dtype=torch.float32)
            cited = answer.cited()
            counts["rec"] += bool(cited) and float(iou_matrix(want, answer.boxes[cited[:1]])) >= 0.5
            overlap = iou_matrix(want, answer.boxes)[0]
            counts["ceiling"] += float(overlap.max()) >= 0.5
            counts["largest"] += float(overlap[area(answer.boxes).argmax()]) >= 0.5
            counts["best"] += float(overlap[0]) >= 0.5
        for name in ("rec", "ceiling", "largest", "best"):
            tally[name].append((counts[name], len(phrases)))
    return [ratio("REC accuracy@0.5", tally["rec"]), ratio("  ceiling: any region fits", tally["ceiling"]),
            ratio("  rule: always the largest", tally["largest"]), ratio("  rule: always the best scored", tally["best"])]


def referring_by_regions(engine: TorchEngine, photos: Iterable[Photo], nouns: Nouns) -> list[Figure]:
    """REC without a language model: the region that shows the category of the phrase's head noun most surely, the best scored
    one where the phrase names none.  What categories alone give; telling two of a kind apart is not in it."""
    right, unmapped = [], []
    for photo in photos:
        phrases = [p for p in photo.phrases if len(p.boxes) == 1]
        if not phrases:
            continue
        centre, _ = engine.regions(photo, NO_BOXES)
        corner, sure = in_pixels(centre, photo), nouns.beliefs(engine.shown(photo, centre))
        hits = named = 0
        for p in phrases:
            label = category_of(p.text, set(nouns.names))
            at = 0 if label is None else int(sure[:, nouns.index[label]].argmax())
            want = torch.tensor([p.boxes[0]], dtype=torch.float32)
            hits += float(iou_matrix(want, corner[at : at + 1])) >= 0.5
            named += label is not None
        right.append((hits, len(phrases)))
        unmapped.append((len(phrases) - named, len(phrases)))
    return [ratio("REC accuracy@0.5 by the region encoder alone", right), ratio("  phrases that name no category", unmapped)]


def detect_all(engine: Engine, photos: Iterable[Photo], absent: int = 2, most: int = 4, seed: int = 0) -> list[Figure]:
    """At most ``most`` present and ``absent`` absent categories a photo, drawn with a fixed seed."""
    def cited(photo: Photo, label: str) -> torch.Tensor:
        answer = engine.ask(photo, "detect", label, NO_BOXES)
        return answer.boxes[answer.cited()]

    rows, alarms = _detect_all(cited, photos, absent, most, seed)
    return [f1("detect-all F1@0.5 (present categories)", rows),
            ratio("detect-all false alarms (absent categories)", alarms)]


def detect_by_regions(engine: TorchEngine, photos: Iterable[Photo], nouns: Nouns, absent: int = 2, most: int = 4,
                      seed: int = 0) -> list[Figure]:
    """The same questions without a language model: cited is every region that shows the category's noun, nearer than any
    other and than nothing.  What perception allows; beside it, how many boxes any of the model's regions fits."""
    def known(photo: Photo) -> tuple[torch.Tensor, torch.Tensor]:
        centre, _ = engine.regions(photo, NO_BOXES)
        return in_pixels(centre, photo), nouns.nearest(engine.shown(photo, centre))

    def cited(photo: Photo, label: str) -> torch.Tensor:
        corner, named = known(photo)
        return corner[named == nouns.index[label]]

    photos = list(photos)
    rows, alarms = _detect_all(cited, photos, absent, most, seed)
    every, _ = _detect_all(lambda photo, label: known(photo)[0], photos, absent, most, seed)  # the same draws
    return [f1("detect-all F1@0.5 by the region encoder alone", rows),
            ratio("  false alarms", alarms),
            ratio("  ceiling: boxes that any region fits", [(hits, hits + missed) for hits, _, missed in every])]


def _detect_all(cited: Callable[[Photo, str], torch.Tensor], photos: Iterable[Photo], absent: int, most: int, seed: int,
                ) -> tuple[list[tuple[int, int, int]], list[tuple[int, int]]]:
    """Per photo hits, wrong boxes and misses over its categories, and false alarms of how many absent ones."""
    photos, rng, found_rows, alarms = list(photos), random.Random(seed), [], []
    sets = label_sets(photos)
    for photo in photos:
        present = sorted({o.label for o in photo.objects if not o.iscrowd})
        hits = wrong = missed = false = 0
        for label in rng.sample(present, min(most, len(present))):
            want, found = truth(photo, label), cited(photo, label)
            matched = greedy_matches(want, found)
            hits, wrong, missed = hits + matched, wrong + len(found) - matched, missed + len(want) - matched
        lacking = [c for c in sets.get(photo.label_set, ()) if c not in {o.label for o in photo.objects}]
        asked = rng.sample(lacking, min(absent, len(lacking)))
        for label in asked:
            false += len(cited(photo, label)) > 0
        found_rows.append((hits, wrong, missed))
        alarms.append((false, len(asked)))
    return found_rows, alarms


def lvis_ground(engine: Engine, photos: Iterable[Photo]) -> list[Figure]:
    """LVIS-Ground: every annotated category of a photo is asked for; average recall of what is found, and AS-MANY, where
    only as many of the found boxes count as there are true ones."""
    recall, as_many = [], []
    for photo in photos:
        found_sum, many_sum, boxes = 0.0, 0.0, 0
        for label in sorted({o.label for o in photo.objects if not o.iscrowd}):
            want, answer = truth(photo, label), engine.ask(photo, "detect", label, NO_BOXES)
            found = answer.boxes[answer.cited()]
            found_sum += average_recall(best_overlaps(want, found))
            many_sum += as_many_recall(want, found) * len(want)
            boxes += len(want)
        recall.append((found_sum, boxes))
        as_many.append((many_sum, boxes))
    return [ratio("LVIS-Ground AR (0.50:0.95)", recall), ratio("LVIS-Ground AS-MANY AR (0.50:0.95)", as_many)]


def captions(engine: Engine, photos: Iterable[Photo]) -> list[Figure]:
    photos, right, unmapped, grounded = list(photos), [], [], []
    sets = label_sets(photos)
    for photo in photos:
        categories = frozenset(sets.get(photo.label_set, ()))
        if not categories:
            continue
        answer = engine.ask(photo, "describe", "", NO_BOXES)
        hit = cited = strange = 0
        groups = [s for s in answer.segments if s.phrase and s.regions]
        for s in groups:
            label = category_of(s.text, categories)
            strange += label is None
            if label is not None:
                best = best_overlaps(answer.boxes[s.regions], truth(photo, label))
                hit, cited = hit + int((best >= 0.5).sum()), cited + len(s.regions)
        right.append((hit, cited))
        unmapped.append((strange, len(groups)))
        grounded.append((bool(groups), 1))
    return [ratio("grounded captions: cited boxes that match their phrase", right),
            ratio("  captions that cite anything", grounded), ratio("  phrases that map to no category", unmapped)]


def caption_perplexity(engine: TorchEngine, photos: Iterable[Photo], seed: int = 0) -> list[Figure]:
    """Of one human caption a photo, as the answer to the plain request for a description."""
    rng, rows = random.Random(seed), []
    for photo in photos:
        made = templates.caption(Scene([], [], [], captions=photo.captions), rng)
        if made:
            rows.append(engine.surprise(photo, Exchange("Please briefly summarize the content of this image.", made.answer,
                                                        "caption")))
    return [perplexity("perplexity of human captions", rows)]


def grammar(engine: Engine, photos: Iterable[Photo], seed: int = 0) -> list[Figure]:
    """How often a localisation is answered in the grammar: with regions, or by saying that there is none."""
    rng, rows = random.Random(seed), []
    for photo in photos:
        labels = sorted({o.label for o in photo.objects})
        if labels:
            answer = engine.ask(photo, "detect", rng.choice(labels), NO_BOXES)
            text = " ".join(s.text for s in answer.segments)
            rows.append((bool(answer.cited()) or text.startswith("There is no"), 1))
    return [ratio("answers in the grammar", rows)]
