"""What stages 2 and 3 share: samples, their batching, and the language model's loss over them."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groma_training import boxes, proposer
from groma_training.data.photo import Photo
from groma_training.dialogue import Packed
from groma_training.model.groma import Groma
from groma_training.model.select import nms
from groma_training.nouns import Nouns
from groma_training.proposer import SHOWN_AT
from groma_training.templates import Scene
from groma_training.tokens import IGNORE, SpecialIds
from groma_training.views import View, normalised, seen_boxes, to_input
from groma_training.vocabulary import SYNONYMS, category_of

INDEX_WEIGHT = 5.0  # index tokens carry the answer; words around them are easy
SURE = 0.2  # belief from which on a region shows a thing
CITED = 0.8  # belief from which on a caption cites a region
ABSENT = 0.02  # what no region shows more surely is not there
AS_SURE = 0.7  # of the surest region's belief: regions that show a thing about as surely
SAME, PART = 0.4, 0.85  # regions of one kind that overlap so much, or lie in each other by so much, show one thing
PLACES = re.compile(r"\b(left|right|middle|centre|center|top|bottom|upper|lower|front|back|far|near|closest|\w+est|big|bigger"
                    r"|large|larger|small|smaller|little|two|three|four|both|people)\b", re.IGNORECASE)
MOST_REGIONS = 100  # there are index tokens for so many


@dataclass
class Sample:
    """One image (or scene) with its packed questions.

    ``regions`` [R,4] in slot order.  ``shown`` [R,H] replaces what the region encoder would say (stage 0), or with
    ``help`` > 0 is mixed in.  ``labels`` [R]: category of each region, as in ``proposer``.  ``states``: the encoder's last
    ones, where they are known already.
    """

    packed: Packed
    regions: Tensor
    kinds: list[str]
    pixels: Tensor | None = None
    shown: Tensor | None = None
    help: float = 0.0
    states: list[Tensor] | None = None
    labels: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))


class Speaker(nn.Module):
    """Groma with its training loss; parameters keep their official names below ``groma.``."""

    def __init__(self, groma: Groma, special: SpecialIds, nouns: Nouns) -> None:
        super().__init__()
        self.groma, self.special, self.nouns = groma, special, nouns

    def look(self, pixels: Tensor) -> list[Tensor]:
        """u8 [B,3,S,S] -> all encoder states, without gradients (the perceiver is frozen from stage 2 on)."""
        with torch.no_grad():
            encoder = self.groma.perceiver.vis_encoder
            return encoder(to_input(pixels).to(encoder.embeddings.cls_token.dtype))

    def states(self, photos: Sequence[Sample]) -> list[Tensor]:
        """The encoder's last states of all photos, [B,1+N,D] each."""
        if all(s.states is not None for s in photos):
            return [torch.stack(level) for level in zip(*(s.states for s in photos), strict=True)]
        return self.look(torch.stack([s.pixels for s in photos]).to(self.groma.new_input_embs.weight.device))

    @torch.no_grad()
    def beliefs(self, states: list[Tensor], regions: Tensor) -> Tensor:
        """What the region encoder takes a photo's regions [R,4] for; states: the last ones [1+N,D] -> [R,C+1]."""
        return self.nouns.beliefs(self.groma.regions_show([t[None] for t in states], [regions])).cpu()

    def regions(self, samples: Sequence[Sample], states: list[Tensor] | None) -> tuple[list[Tensor], Tensor | None]:
        """Region tokens per sample, and what the encoder says photos' regions show [sum R,H]."""
        roi = self.groma.region_encoder.roi_align
        device = roi.updims.weight.device
        photos = [s for s in samples if s.pixels is not None]
        real = None
        if photos:
            real = self.groma.regions_show(states, [s.regions for s in photos])
        out, start = [], 0
        for s in samples:
            where = roi.updims(roi.position(s.regions.to(device))).float()
            if s.pixels is None:
                out.append(s.shown.to(device) + where)
                continue
            own = real[start : start + len(s.regions)]
            start += len(s.regions)
            if s.help > 0:  # fades from the clean noun to the encoder's own words
                own = own + s.help * (s.shown.to(device) - own.detach())
            out.append(own + where)
        return out, real

    def forward(self, samples: Sequence[Sample]) -> tuple[Tensor, dict[str, float], Tensor | None]:
        """-> loss, what to report, and what photos' regions show."""
        g = self.groma
        device = g.new_input_embs.weight.device
        photos = [s for s in samples if s.pixels is not None]
        states = self.states(photos) if photos else None
        image = iter(g.image_tokens(states)) if photos else None
        tokens, real = self.regions(samples, states)
        longest = max(len(s.packed.ids) for s in samples)
        dtype = g.llm.model.embed_tokens.weight.dtype
        x, positions, masks = [], [], []
        none = torch.zeros(0, g.c.llm.hidden_size, device=device)
        for s, region in zip(samples, tokens, strict=True):
            ids, extra = s.packed.ids.to(device), longest - len(s.packed.ids)
            own = next(image) if s.pixels is not None else none
            x.append(F.pad(g.prompt(ids, self.special, own, region, s.packed.refers.to(device)), (0, 0, 0, extra)))
            positions.append(F.pad(s.packed.positions.to(device), (0, extra)))
            mask = F.pad(s.packed.mask(dtype).to(device), (0, extra, 0, extra), value=torch.finfo(dtype).min)
            masks.append(mask)
        out = g.llm.model(inputs_embeds=torch.stack(x).to(dtype), attention_mask=torch.cat(masks),
                          position_ids=torch.stack(positions), use_cache=False).last_hidden_state
        return *self._loss(out, samples), real

    def _loss(self, hidden: Tensor, samples: Sequence[Sample]) -> tuple[Tensor, dict[str, float]]:
        total, weights, report = hidden.sum() * 0.0, 0.0, {}
        first_index = self.special.index[0]
        for row, s in zip(hidden, samples, strict=True):
            labels = s.packed.labels.to(row.device)
            learnt = labels != IGNORE
            logits = self.groma.logits(row[: len(labels)][learnt]).float()
            target, owner = labels[learnt], s.packed.answers().to(row.device)[learnt]
            weight = torch.where(target >= first_index, INDEX_WEIGHT, 1.0)
            total = total + (F.cross_entropy(logits, target, reduction="none") * weight).sum()
            weights += float(weight.sum())
            hit = logits.argmax(-1) == target
            for b, kind in enumerate(s.kinds):
                of = owner == b
                if kind in ("all", "one", "place", "phrase", "many"):
                    of = of & (target >= first_index)
                if of.any():
                    report.setdefault(kind, []).append(float(hit[of].float().mean()))
        return total / max(weights, 1.0), {k: sum(v) / len(v) for k, v in report.items()}


def choose_regions(proposed: Tensor, scores: Tensor, v: View, budget: int, nms_thres: float, rng: random.Random) -> Tensor:
    """Proposals with the annotated boxes mixed in (slightly moved, below every real proposal), NMS, random order."""
    truth = proposer.jitter(v.boxes, 0.04)[:MOST_REGIONS] if len(v.boxes) else v.boxes
    budget = min(budget, MOST_REGIONS - len(truth))  # no annotated box may be crowded out
    both = torch.cat([proposed[:budget], truth])
    value = torch.cat([scores[:budget], torch.full((len(truth),), 1e-3)])
    kept = both[nms(boxes.corners(both), value, nms_thres, 0.0, MOST_REGIONS)]
    order = list(range(len(kept)))
    rng.shuffle(order)
    return kept[order]


def scene_as_shown(scene: Scene, regions: Tensor, beliefs: Tensor, nouns: Nouns, wordings: Wordings) -> Scene:
    """``scene_of``'s scene as the region encoder sees it (regions [R,4] in the order of their scores; beliefs [R,C+1],
    ``Nouns.beliefs``): what a region shows is there, whatever the annotation says, and nobody asks for all of what one
    hardly shows.  A region may show two kinds; it is called by the likelier.  Of regions that show one thing the best scored
    is named.

    An answer then follows from the tokens alone.  Annotations can't be read off tokens that are wrong; a decoder taught by
    them learns to guess.  Who refers to a thing means one that is there: a phrase asks for the best scored of the regions
    that show its kind about as surely as any, however sure that is.  Annotated phrases stay where they mean such a region.
    Captions name and cite what is surer than that, the best scored first: figures stand in ``training/README.md``.
    """
    labels, where, shown, named, sought, absent = [], [], [], [], [], []
    mentions: dict[str, list[int]] = {name: [] for name in nouns.names}
    likeliest = beliefs.argmax(1)
    corners = boxes.corners(regions)
    for c, name in enumerate(nouns.names):
        own = beliefs[:, c]
        sure = (own >= SURE).nonzero()[:, 0]
        for r in sure[_one_a_thing(corners[sure])].tolist():
            labels.append(name)
            where.append(tuple(regions[r].tolist()))
            shown.append(r)
            named.append(bool(likeliest[r] == c))
            if own[r] >= CITED:
                mentions[name].append(r)
        if own.max() >= ABSENT:
            sought.append((wordings.of(name), _best_showing(own)))
        else:
            absent.append(name)
    phrases = []
    for text, r in scene.phrases:
        c = nouns.index.get(category_of(text, nouns.index.keys()))
        if c is not None and beliefs[r, c] >= max(ABSENT, AS_SURE * float(beliefs[:, c].max())):
            phrases.append((text, r))
    mentions = dict(sorted(mentions.items(), key=lambda kind: kind[1][:1]))
    return Scene(labels, where, shown, scene.captions, phrases, sought, mentions, named, absent, scene.mirrored)


def _one_a_thing(corners: Tensor) -> list[int]:
    """Of regions [N,4] of one kind, best scored first, the first that shows each thing: a part of a thing is the thing."""
    kept: list[int] = []
    if len(corners):
        same = (boxes.iou_matrix(corners, corners) >= SAME) | (boxes.part_matrix(corners, corners) >= PART)
        for i in range(len(corners)):
            if not same[i, kept].any():
                kept.append(i)
    return kept


def _best_showing(beliefs: Tensor) -> int:
    """Of regions in the order of their scores the first that shows a thing about as surely as any."""
    return int((beliefs >= AS_SURE * beliefs.max()).nonzero()[0, 0])


class Wordings:
    """How people name a category: the phrases that mean it in annotations, and its synonyms."""

    def __init__(self, photos: Sequence[Photo], categories: Sequence[str], rng: random.Random) -> None:
        self.rng, known = rng, set(categories)
        self.said: dict[str, list[str]] = {c: [] for c in categories}
        for text in (p.text for photo in photos for p in photo.phrases if not PLACES.search(p.text)):
            if (label := category_of(text, known)) is not None:
                self.said[label].append(text)

    def of(self, category: str) -> str:
        """A phrase whose head noun means the category, without a word of place or size."""
        said = self.said[category]
        if said and self.rng.random() < 0.6:
            return self.rng.choice(said)
        word = self.rng.choice([category, category, *SYNONYMS.get(category, "").split()])
        return self.rng.choice(["a ", "the ", ""]) + word


def shown_by(things: Tensor, regions: Tensor) -> list[int | None]:
    """The region [R,4] that shows each thing [N,4] (both in centre form), or None where none fits it."""
    if not len(things) or not len(regions):
        return [None] * len(things)
    value, at = boxes.iou_matrix(boxes.corners(things), boxes.corners(regions)).nan_to_num(0).max(1)
    return [k if o >= SHOWN_AT else None for k, o in zip(at.tolist(), value.tolist(), strict=True)]


def scene_of(v: View, regions: Tensor, vocabulary: Sequence[str]) -> tuple[Scene, Tensor]:
    """The view's annotation in terms of its regions, and what each region shows: an object's place, NOTHING or UNKNOWN."""
    labels = [v.photo.objects[i].label for i in v.kept]
    phrases = []
    for p in v.photo.phrases:
        if len(p.boxes) != 1:
            continue
        row, visible = seen_boxes(normalised(v.photo, p.boxes), v.window, v.flipped)
        if bool(visible.all()) and (at := shown_by(row, regions)[0]) is not None:
            phrases.append((p.text, at))
    whole = v.window == (0.0, 0.0, 1.0, 1.0)
    certain = v.photo.exhaustive and whole
    scene = Scene(labels, [tuple(b) for b in v.boxes.tolist()], shown_by(v.boxes, regions), v.photo.captions if whole else [],
                  phrases, vocabulary=vocabulary if certain else (), mirrored=v.flipped)
    return scene, proposer.owners(v, regions)
