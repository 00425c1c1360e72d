"""Conversations: the wordings of every Groma task, over one photo's regions.

A ``Scene`` knows which region (index token) shows which annotated box; every function here turns it into an
``Exchange``, a user text and the answer expected, or None where the scene does not allow the question.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from groma_training.data.photo import Turn
from groma_training.vocabulary import category_of, plural

# The first wording of each list is the one that the engine's own calls use.
FIND_ALL = ["Locate all {} in this image.", "Find every {} in the picture.", "Point to each {} you can see.",
            "Where are the {} in this photo?", "Detect {} in the image.", "Show me all {}."]
FIND_ONE = ["Locate {} in the image.", "Where is {}?", "Find {} in the picture.", "Point to {}.", "Which region shows {}?",
            "Can you spot {} in the photo?"]
FIND_MANY = ["Locate {} in this image.", "Find {} in the picture.", "Where are {}?", "Detect {}.", "Point to {}."]
SAY_SHORT = ["Please briefly describe {}.", "What is {}?", "What does {} show?", "Name {}.", "Briefly describe {}."]
SAY_LONG = ["Please describe {} in details.", "Tell me more about {}.", "What can you say about {}?"]
SUMMARISE = ["Please briefly summarize the content of this image.", "Describe the image briefly.",
             "What does this picture show?", "Sum the photo up in a sentence."]
NONE = "There is no {} in the image."
GROUNDING = "[grounding]"
COVERED = 0.7  # a "find all" is only asked where at least this share of the objects has a region
MOST_LISTED = 14
LONG = 3  # words from which on a phrase is a description
MOST_SOUGHT = 8  # things of one question
MOST_KINDS = 3  # of a list that stands for a caption
MOST_CITED = 3  # regions of a caption's mention where they may be wrong: the surest are few, and find-all lists all
CLEARLY = 0.08  # how far apart centres must lie before "left" or "right" is said
SIDES = re.compile(r"\b(left|right)", re.IGNORECASE)
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


@dataclass
class Exchange:
    """``refer``: the region whose token stands at <refer_feat>, for questions about a user's box."""

    question: str
    answer: str
    kind: str
    refer: int | None = None
    weight: float = 1.0


@dataclass
class Scene:
    """``labels`` and ``boxes`` (cx, cy, w, h) of the annotated objects, ``regions`` the index of the region that shows
    each (or None); ``vocabulary`` the categories whose absence is certain when they are not among the labels."""

    labels: list[str]
    boxes: list[tuple[float, float, float, float]]
    regions: list[int | None]
    captions: list[str] = field(default_factory=list)
    phrases: list[tuple[str, int]] = field(default_factory=list)  # a text and the region it means
    sought: list[tuple[str, int]] = field(default_factory=list)  # phrases to ask for, not to say: they fit in kind alone
    mentions: dict[str, list[int]] | None = None  # regions that surely show a kind, best scored first; None: as annotated
    named: list[bool] | None = None  # whether one would call an object's region by its label; None: all
    vocabulary: Sequence[str] = ()
    mirrored: bool = False  # left and right in captions and phrases are then wrong

    def of(self, label: str) -> list[int]:
        return [i for i, own in enumerate(self.labels) if own == label]

    def regions_of(self, label: str) -> list[int]:
        return sorted({self.regions[i] for i in self.of(label) if self.regions[i] is not None})


def phrase(text: str) -> str:
    return f"<p>{text}</p>"


def region_list(ids: Sequence[int]) -> str:
    return "<roi>" + "".join(f"<r{i}>" for i in ids) + "</roi>"


def user_box(region: int) -> str:
    """What <refer_box> has become by the time the model reads it, with the region's own token behind."""
    return f"<roi><r{region}></roi><refer_feat>"


def find_all(scene: Scene, label: str, rng: random.Random) -> Exchange | None:
    ids, count = scene.regions_of(label), len(scene.of(label))
    if not ids or count > MOST_LISTED or len(ids) < COVERED * count:
        return None
    word = plural(label) if rng.random() < 0.4 else label
    return Exchange(_pick(FIND_ALL, rng).format(phrase(word)), region_list(ids), "all", weight=1.5 if label == "person" else 3)


def find_none(scene: Scene, rng: random.Random) -> Exchange | None:
    """An absent category, asked for in either wording."""
    absent = [c for c in scene.vocabulary if c not in scene.labels]
    if not absent:
        return None
    label = rng.choice(absent)
    if rng.random() < 0.75:
        word = plural(label) if rng.random() < 0.3 else label
        return Exchange(_pick(FIND_ALL, rng).format(phrase(word)), NONE.format(label), "none", weight=2)
    return Exchange(_pick(FIND_ONE, rng).format(phrase("the " + label)), NONE.format(label), "none", weight=2)


def find_one(scene: Scene, label: str, rng: random.Random) -> Exchange | None:
    """The only one of its kind, or one told apart by its place or size."""
    all_of, shown = scene.of(label), [i for i in scene.of(label) if scene.regions[i] is not None]
    if not shown:
        return None
    if len(all_of) == 1:
        text = rng.choice(["the ", ""]) + label
        return Exchange(_pick(FIND_ONE, rng).format(phrase(text)), region_list([scene.regions[shown[0]]]), "one", weight=2)
    if len(all_of) > 5:
        return None
    which = rng.choice(shown)
    word = distinction([scene.boxes[i] for i in all_of], all_of.index(which), rng)
    if word is None:
        return None
    return Exchange(_pick(FIND_ONE, rng).format(phrase("the " + word.format(label))), region_list([scene.regions[which]]),
                    "place", weight=1.2)


def true_phrases(scene: Scene) -> list[tuple[str, int]]:
    """Phrases that hold in this view: in a mirrored one those of sides do not."""
    return [p for p in scene.phrases if not (scene.mirrored and SIDES.search(p[0]))]


def find_many(scene: Scene, rng: random.Random) -> Exchange | None:
    """Several things in one question, one of them perhaps absent: many lookups for few words, so that binding regions to
    their tokens is learnt several times faster than by one question a thing."""
    sought: list[tuple[str, list[int]]] = []
    for label in dict.fromkeys(scene.labels):
        if find_all(scene, label, rng) is not None:
            many = len(scene.of(label)) > 1 and rng.random() < 0.7
            sought.append((plural(label) if many else label, scene.regions_of(label)))
    phrases = true_phrases(scene) + scene.sought
    sought += [(text, [region]) for text, region in rng.sample(phrases, min(2, len(phrases)))]
    if len(sought) < 2:
        return None
    sought = rng.sample(sought, min(len(sought), rng.randint(2, MOST_SOUGHT)))
    absent = [c for c in scene.vocabulary if c not in scene.labels]
    missing = rng.choice(absent) if absent and rng.random() < 0.4 else None
    asked = [phrase(text) for text, _ in sought]
    answer = listed([phrase(text) + region_list(ids) for text, ids in sought]) + "."
    if missing:
        asked.insert(rng.randint(0, len(asked)), phrase(missing))
        answer += " " + NONE.format(missing)
    return Exchange(_pick(FIND_MANY, rng).format(listed(asked)), answer, "many", weight=4)


def listed(parts: Sequence[str]) -> str:
    """"a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def refer(scene: Scene, rng: random.Random) -> Exchange | None:
    phrases = true_phrases(scene) + scene.sought
    if not phrases:
        return None
    text, region = rng.choice(phrases)
    return Exchange(_pick(FIND_ONE, rng).format(phrase(text)), region_list([region]), "phrase", weight=2.5)


def describe(scene: Scene, rng: random.Random, which: int | None = None) -> Exchange | None:
    """A region's name."""
    shown = [i for i, r in enumerate(scene.regions) if r is not None] if which is None else [which]
    if not shown:
        return None
    which = rng.choice(shown)
    region = scene.regions[which]
    if region is None:
        return None
    answer = scene.labels[which]
    answer = answer[:1].upper() + answer[1:]
    question = _pick(SAY_SHORT, rng).format(user_box(region))
    return Exchange(question, answer if answer.endswith(".") else answer + ".", "say", region, 0.8)


def describe_phrase(said: tuple[str, int], rng: random.Random) -> Exchange:
    """A referring expression or a region's description turned round: the words for a user's box."""
    text, region = said[0].strip(), said[1]
    answer = text[:1].upper() + text[1:]
    question = _pick(SAY_LONG, rng).format(user_box(region))
    return Exchange(question, answer if answer.endswith(".") else answer + ".", "say", region, 0.6)


def summarise(scene: Scene, rng: random.Random, most: int = 260) -> Exchange | None:
    """A human caption with its mentions of annotated things tied to their regions, or what follows from the regions."""
    captions = [c.strip() for c in scene.captions if len(c) <= most and not (scene.mirrored and SIDES.search(c))]
    if scene.mentions is None:
        known = {label: scene.regions_of(label) for label in set(scene.labels)}
        known = {k: v for k, v in known.items() if len(v) == len(scene.of(k))}  # or its mention might mean one without a region
        tied, count = ground_caption(rng.choice(captions), known) if captions else ("", 0)
        text = tied if count else None
    else:
        text = _surely_shown(captions, scene.mentions, rng)
    return Exchange(GROUNDING + _pick(SUMMARISE, rng), text, "tell", weight=3) if text else None


def _surely_shown(captions: Sequence[str], mentions: dict[str, list[int]], rng: random.Random) -> str | None:
    """A human caption that names only kinds of things that regions surely show, and one of them at least; where nobody wrote
    one a plain list of those kinds.  Where regions are sure of nothing any caption, without regions."""
    sure = {k: v for k, v in mentions.items() if v}
    if not sure:
        return rng.choice(captions) if captions else None
    unsure = {k: [0] for k, v in mentions.items() if not v}
    fit = [c for c in captions if _names(c, sure) and not _names(c, unsure)]
    text = rng.choice(fit) if fit else listed_kinds({k: len(v) for k, v in sure.items()})
    return ground_caption(text, sure, best_first=True)[0]


def _names(text: str, kinds: dict[str, list[int]]) -> bool:
    return ground_caption(text, kinds, best_first=True)[1] > 0


def listed_kinds(counts: Mapping[str, int]) -> str:
    """"A dog, two cars and many people." over the first of the kinds."""
    some = [_counted(name, n) for name, n in list(counts.items())[:MOST_KINDS]]
    text = listed(some)
    return text[:1].upper() + text[1:] + "."


def _counted(name: str, n: int) -> str:
    if n > 1:
        return f"{NUMBERS.get(n, 'many')} {plural(name)}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def caption(scene: Scene, rng: random.Random) -> Exchange | None:
    if not scene.captions or scene.mirrored:
        return None
    return Exchange(_pick(SUMMARISE, rng), rng.choice(scene.captions).strip(), "caption", weight=0.4)


def conversation(turns: Sequence[Turn], regions: Sequence[Sequence[int | None]], grounded: bool = True) -> list[Exchange]:
    """Groma Instruct and LLaVA-style turns: ``[k]`` in an answer stands for box k of its turn, and the words before
    it that are set in <p>…</p> are the phrase.  regions: per turn, the region of each box."""
    out = []
    for turn, ids in zip(turns, regions, strict=True):
        def name(match: re.Match, ids: Sequence[int | None] = ids) -> str:
            found = [ids[int(k)] for k in re.findall(r"\d+", match[0]) if int(k) < len(ids)]
            found = [r for r in found if r is not None]
            return region_list(found) if found else ""

        answer = re.sub(r"(?:\[\d+\])+", name, turn.answer)
        answer = re.sub(r"<p>([^<]*)</p>(?!<roi>)", r"\1", answer)  # a phrase without regions is just text
        tied = "<roi>" in answer
        out.append(Exchange((GROUNDING if grounded and tied else "") + turn.question, answer.strip(), "chat"))
    return out


def questions(scene: Scene, count: int, rng: random.Random) -> list[Exchange]:
    """Up to ``count`` different exchanges about one photo, the rarer kinds preferred."""
    pool: list[Exchange | None] = []
    for label in dict.fromkeys(scene.labels):
        pool += [find_all(scene, label, rng), find_one(scene, label, rng)]
        which = [i for i in scene.of(label) if scene.regions[i] is not None and (scene.named is None or scene.named[i])]
        if which:
            pool.append(describe(scene, rng, which=rng.choice(which)))
    pool += [refer(scene, rng) for _ in scene.phrases + scene.sought]
    pool += [describe_phrase(p, rng) for p in true_phrases(scene) if len(p[0].split()) >= LONG]
    pool += [find_many(scene, rng) for _ in range(1 + len(set(scene.labels)) // MOST_SOUGHT)]
    pool += [find_none(scene, rng), find_none(scene, rng), summarise(scene, rng), summarise(scene, rng), caption(scene, rng)]
    left = {(e.question, e.answer): e for e in pool if e is not None}
    out: list[Exchange] = []
    while left and len(out) < count:
        keys = list(left)
        chosen = rng.choices(keys, [left[k].weight for k in keys])[0]
        out.append(left.pop(chosen))
    return out


def distinction(boxes: Sequence[tuple[float, float, float, float]], which: int, rng: random.Random) -> str | None:
    """A wording with a gap for the noun that fits only box ``which`` among its like, or None."""
    x, y, w, h = boxes[which]
    rest = [b for i, b in enumerate(boxes) if i != which]
    fits: list[str] = []
    if all(x < b[0] - CLEARLY for b in rest):
        fits += ["{} on the left", "left {}", "leftmost {}"]
    if all(x > b[0] + CLEARLY for b in rest):
        fits += ["{} on the right", "right {}", "rightmost {}"]
    if all(y < b[1] - CLEARLY for b in rest):
        fits += ["{} at the top", "top {}", "upper {}"]
    if all(y > b[1] + CLEARLY for b in rest):
        fits += ["{} at the bottom", "bottom {}", "lower {}"]
    if all(w * h > 1.5 * b[2] * b[3] for b in rest):
        fits += ["big {}", "largest {}", "large {}"]
    if all(1.5 * w * h < b[2] * b[3] for b in rest):
        fits += ["small {}", "smallest {}", "little {}"]
    if len(rest) == 2 and min(b[0] for b in rest) + CLEARLY < x < max(b[0] for b in rest) - CLEARLY:
        fits += ["middle {}", "{} in the middle"]
    return rng.choice(fits) if fits else None


DETERMINERS = frozenset("a an the two three four five six some several his her their young large small little big black white "
                        "brown red green blue yellow old tall many".split())
PLURAL_WORDS = frozenset("people men women children kids boys girls sheep".split())


def ground_caption(text: str, regions: dict[str, list[int]], best_first: bool = False) -> tuple[str, int]:
    """Ties the first mention of each category to its regions: "A <p>brown dog</p><roi><r3></roi> runs." and how many.

    A plural mention cites all regions; a singular one only where there is exactly one, so that no caption cites a
    guess.  Regions that are themselves a guess come ``best_first``: then a singular mention cites the first, a plural as
    many as it says, or ``MOST_CITED``.
    """
    words = re.findall(r"[A-Za-z'-]+|[^A-Za-z'\s-]+|\d+", text)
    categories, used, out, i = set(regions), set(), [], 0
    while i < len(words):
        for n in (2, 1):
            mention = words[i : i + n]
            if len(mention) < n or not all(w[0].isalpha() for w in mention):
                continue
            label = category_of(" ".join(mention), categories) if n == 1 else _exact(mention, categories)
            if label and label not in used:
                break
        else:
            out.append(words[i])
            i += 1
            continue
        last = mention[-1].lower()
        ends = last.endswith("s") and not last.endswith("ss") and last not in {"bus", "skis", "scissors"}
        many = ends or last in PLURAL_WORDS
        i += n
        if not many and len(regions[label]) > 1 and not best_first:
            out += mention
            continue
        used.add(label)
        while out and len(mention) < 4 and out[-1].lower() in DETERMINERS:
            mention.insert(0, out.pop())
        cited = regions[label]
        if best_first:
            said = {w.lower() for w in mention}
            cited = cited[: next((n for n, word in NUMBERS.items() if word in said), MOST_CITED) if many else 1]
        out.append(phrase(" ".join(mention)) + region_list(cited))
    joined = ""
    for word in out:
        joined += word if not joined or re.fullmatch(r"[.,;:!?]+", word) else " " + word
    return (joined if joined.endswith(".") else joined + "."), len(used)


def _exact(words: list[str], categories: set[str]) -> str | None:
    text = " ".join(words).lower()
    for name in (text, text.rstrip("s")):
        if name in categories:
            return name
    return None


def _pick(wordings: list[str], rng: random.Random) -> str:
    """The engine's own wording half of the time."""
    return wordings[0] if rng.random() < 0.5 else rng.choice(wordings)
