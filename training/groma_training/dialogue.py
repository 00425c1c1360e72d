"""Prompts as token ids: whole conversations, and many independent questions packed behind one image.

Packing: one prefix (system text, image, regions) and several branches, each a first question with its answer.  A branch
sees the prefix and itself, never another branch, and positions restart at the prefix's end, so that every branch is
exactly a conversation of its own at a fraction of the price, with no region ids to copy from earlier turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from groma_training.templates import Exchange
from groma_training.tokens import IGNORE, SpecialIds, expand

IMAGE_TURN = "Here is an image with region crops from it. Image: <image>. Regions: <region>."
IMAGE_REPLY = "Thank you for the image! How can I assist you with it?"
SYSTEM = {
    "vicuna": "A chat between a curious user and an artificial intelligence assistant. "
              "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "chatml": "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
}


@dataclass(frozen=True)
class Template:
    """How a conversation is written down: "vicuna" or "chatml"."""

    name: str

    def prefix(self) -> str:
        """Everything before the first question."""
        if self.name == "vicuna":
            return f"{SYSTEM['vicuna']} USER: {IMAGE_TURN} ASSISTANT: {IMAGE_REPLY}</s>"
        if self.name == "chatml":
            return (f"<|im_start|>system\n{SYSTEM['chatml']}<|im_end|>\n<|im_start|>user\n{IMAGE_TURN}<|im_end|>\n"
                    f"<|im_start|>assistant\n{IMAGE_REPLY}<|im_end|>\n")
        raise ValueError(f"chat_template {self.name!r}: expected vicuna or chatml")

    def ask(self, question: str) -> str:
        """A question, up to where the answer starts."""
        if self.name == "vicuna":
            return f"USER: {question} ASSISTANT:"
        return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"

    def end(self) -> tuple[str, str]:
        """What closes an answer (learnt), and what follows it before the next question (not learnt)."""
        return ("</s>", "") if self.name == "vicuna" else ("<|im_end|>", "\n")

    def answer(self, text: str) -> str:
        """Vicuna's answers stand behind a space; ChatML's begin at once."""
        return f" {text}" if self.name == "vicuna" else text


class Writer:
    """Texts -> ids with labels; added tokens are recognised by the tokenizer itself."""

    def __init__(self, tokenizer: Tokenizer, template: str, start: Sequence[int] = ()) -> None:
        self.tokenizer, self.template, self.start = tokenizer, Template(template), list(start)
        self.special = SpecialIds.of(tokenizer.token_to_id)

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def prefix(self, images: int, order: Sequence[int]) -> list[int]:
        """Expanded prefix; ``order``: the index token of each region slot."""
        ids = self.start + self.ids(self.template.prefix())
        return expand(ids, [IGNORE] * len(ids), images, len(order), self.special, order)[0]

    def exchange(self, e: Exchange) -> tuple[list[int], list[int]]:
        """One question and answer -> ids, labels (IGNORE outside the answer and its stop token).

        Both are one text to the tokenizer, as upstream writes them: SentencePiece would begin an answer of its own with a
        second space.
        """
        close, _ = self.template.end()
        question = self.template.ask(e.question)
        whole = self.tokenizer.encode(question + self.template.answer(e.answer) + close, add_special_tokens=False)
        labels = [i if start >= len(question) else IGNORE for i, (start, _) in zip(whole.ids, whole.offsets, strict=True)]
        return whole.ids, labels

    def conversation(self, exchanges: Sequence[Exchange], images: int, order: Sequence[int]) -> tuple[list[int], list[int]]:
        """Several turns about one image, each answer learnt."""
        ids = self.prefix(images, order)
        labels = [IGNORE] * len(ids)
        between = self.ids(self.template.end()[1]) if self.template.end()[1] else []
        for i, e in enumerate(exchanges):
            if i:
                ids, labels = ids + between, labels + [IGNORE] * len(between)
            more, targets = self.exchange(e)
            ids, labels = ids + more, labels + targets
        return ids, labels


@dataclass
class Packed:
    """``ids`` [T]; ``positions`` [T]; ``owner`` [T]: -1 for the prefix, else the branch; ``labels`` [T] shifted so that
    position t predicts labels[t]; ``refers``: the region at each <refer_feat>, in order."""

    ids: Tensor
    positions: Tensor
    owner: Tensor
    labels: Tensor
    refers: Tensor

    def answers(self) -> Tensor:
        """Which answer each learnt position predicts, [T]; between two answers stands a question, which is not learnt."""
        learnt = self.labels != IGNORE
        begins = learnt & ~torch.cat([learnt.new_zeros(1), learnt[:-1]])
        return begins.cumsum(0) - 1

    def mask(self, dtype: torch.dtype) -> Tensor:
        """Additive attention mask [1,1,T,T]."""
        t = torch.arange(len(self.ids), device=self.ids.device)
        see = (t[:, None] >= t[None]) & ((self.owner[None] == -1) | (self.owner[:, None] == self.owner[None]))
        out = torch.zeros(see.shape, dtype=dtype, device=self.ids.device)
        return out.masked_fill(~see, torch.finfo(dtype).min)[None, None]


def pack(writer: Writer, prefix: list[int], exchanges: Sequence[Exchange]) -> Packed:
    ids, positions = list(prefix), list(range(len(prefix)))
    owner, labels = [-1] * len(prefix), [IGNORE] * len(prefix)
    refers = []
    for b, e in enumerate(exchanges):
        more, targets = writer.exchange(e)
        ids += more
        labels += targets
        positions += range(len(prefix), len(prefix) + len(more))
        owner += [b] * len(more)
        refers += [e.refer] * more.count(writer.special.refer_feat)
    shifted = [*labels[1:], IGNORE]
    return Packed(*(torch.tensor(x, dtype=torch.long) for x in (ids, positions, owner, shifted, refers)))
