"""Category names as vectors of the decoder's own input space.

A region token that equals the embedding of its noun is something the frozen language model already understands, so the
region encoder can be taught, and measured, without running the language model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from groma_training.vocabulary import NOUNS

SHARPNESS = 8.0  # of the category loss: how fast belief falls with squared distance


class Nouns:
    """``vectors`` [C,H]: the mean embedding of " name", less ``centre`` [H], the mean over everyday nouns."""

    def __init__(self, names: Sequence[str], table: Tensor, tokenizer: Tokenizer) -> None:
        def embedding(word: str) -> Tensor:
            return table[tokenizer.encode(" " + word, add_special_tokens=False).ids].float().mean(0)

        self.names = list(names)
        self.index = {name: i for i, name in enumerate(self.names)}
        everyday = torch.stack([embedding(word) for word in NOUNS])
        self.centre = everyday.mean(0)
        self.everyday = everyday - self.centre
        self.vectors = torch.stack([embedding(name) for name in self.names]) - self.centre
        self.scale = float(self.vectors.norm(dim=1).mean())

    def distances(self, tokens: Tensor) -> Tensor:
        """tokens [R,H] -> squared distances to every noun in units of their mean length, [R,C]."""
        return torch.cdist(tokens.float(), self.vectors.to(tokens.device)) ** 2 / self.scale**2

    def choices(self, tokens: Tensor) -> Tensor:
        """``distances`` and, in a last column, that to nothing (zero), [R,C+1]."""
        nothing = (tokens.float() ** 2).sum(1, keepdim=True) / self.scale**2
        return torch.cat([self.distances(tokens), nothing], 1)

    def nearest(self, tokens: Tensor) -> Tensor:
        """tokens [R,H] -> the place of the noun that each is nearest to, or len(names) where it is nearer to nothing, [R]."""
        return self.choices(tokens).argmin(1)

    def beliefs(self, tokens: Tensor) -> Tensor:
        """tokens [R,H] -> how likely each shows each noun, or nothing (last), as the category loss reads distances."""
        return (-SHARPNESS * self.choices(tokens)).softmax(1)

    def directions(self, count: int) -> Tensor:
        """[H,count]: principal directions of everyday nouns, scaled so that unit-variance codes reach their length."""
        _, _, v = torch.linalg.svd(self.everyday, full_matrices=True)
        return v[:count].T * float(self.everyday.norm(dim=1).mean()) / count**0.5
