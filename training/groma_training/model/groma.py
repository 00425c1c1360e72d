"""The whole model, assembled under the official names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groma_training.config import GromaConfig
from groma_training.model.encoder import Encoder, patch_map
from groma_training.model.proposer import Proposals, Proposer

PROPOSER_STATES = 4  # the proposer reads the mean of this many last states


class Perceiver(Proposer):
    """``perceiver``: image encoder and proposer."""

    def __init__(self, c: GromaConfig) -> None:
        super().__init__(c.proposer, c.vision.hidden_size)
        self.vis_encoder = Encoder(c.vision)
        self.side = c.side

    def propose(self, states: list[Tensor], trace: bool = False) -> Proposals:
        """states [B,1+N,D], at least the last four."""
        mean = torch.stack([s.float() for s in states[-PROPOSER_STATES:]]).mean(0)
        return super().forward(patch_map(mean, self.side), trace)

    def forward(self, pixels: Tensor) -> Proposals:
        """[B,3,S,S] -> proposals."""
        return self.propose(self.vis_encoder(pixels))


class LoraLinear(nn.Module):
    """A frozen matrix with a trained low-rank addition: W x + alpha/r B A x, named as the export names them."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(base.weight.detach(), requires_grad=False)
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=5**0.5)
        nn.init.zeros_(self.lora_B.weight)
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        low = nn.functional.linear(x, self.lora_A.weight.to(x.dtype))
        return nn.functional.linear(x, self.weight.to(x.dtype)) + nn.functional.linear(
            low, self.lora_B.weight.to(x.dtype)) * self.scale
