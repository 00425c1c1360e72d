"""Groma's tokens: names, ids, and the expansion of a prompt's placeholders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

NUM_INDEX_TOKENS = 100
# Upstream's order; a vocabulary that already has one of them keeps its own id for it.
ADDED_TOKENS = ["[PAD]", "<s>", "</s>", "<unk>", "<sep>", "<img>", "</img>", "<roi>", "</roi>", "<p>", "</p>", "<image>",
                "<region>", "<refer_box>", "<ground_box>", "<refer_feat>", "[grounding]",
                *(f"<r{i}>" for i in range(NUM_INDEX_TOKENS))]
# Never shown as text; besides these, every index token.
NOT_TEXT = frozenset(ADDED_TOKENS[: ADDED_TOKENS.index("<r0>")]) | {"<|im_start|>", "<|im_end|>", "<|endoftext|>"}
IGNORE = -100


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the tokens that the model treats apart, looked up and never assumed."""

    image: int
    region: int
    refer_box: int
    refer_feat: int
    index: tuple[int, ...]

    @classmethod
    def of(cls, token_to_id: Callable[[str], int | None]) -> SpecialIds:
        def find(token: str) -> int:
            found = token_to_id(token)
            if found is None:
                raise KeyError(f"the vocabulary has no {token}")
            return found

        return cls(find("<image>"), find("<region>"), find("<refer_box>"), find("<refer_feat>"),
                   tuple(find(f"<r{i}>") for i in range(NUM_INDEX_TOKENS)))


def expand(ids: Sequence[int], labels: Sequence[int], images: int, regions: int, special: SpecialIds,
           order: Sequence[int] | None = None) -> tuple[list[int], list[int]]:
    """One <image> becomes ``images`` of them, one <region> becomes <r0><region><r1><region>…; labels follow along.

    ``order`` names the index token of each region slot; by default slot k is called <rk>.
    """
    if ids.count(special.image) != 1 or ids.count(special.region) != 1:
        raise ValueError("a prompt needs exactly one <image> and one <region>")
    names = range(regions) if order is None else order
    out_ids: list[int] = []
    out_labels: list[int] = []
    for token, label in zip(ids, labels, strict=True):
        if token == special.image:
            more = [token] * images
        elif token == special.region:
            more = [t for k in names for t in (special.index[k], token)]
        else:
            out_ids.append(token)
            out_labels.append(label)
            continue
        out_ids += more
        out_labels += [IGNORE] * len(more)
    return out_ids, out_labels
