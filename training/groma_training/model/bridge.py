"""Image tokens: cells of k x k patches through a two-layer perceptron into the language model's width."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def merge_cells(state: Tensor, side: int, k: int) -> Tensor:
    """[B,1+N,D] -> [B,(side/k)^2,D*k*k]; the patches of a cell are joined column by column, as upstream does."""
    x = state[:, 1:].unflatten(1, (side, side))
    cells = torch.cat([x[:, row::k, col::k] for col in range(k) for row in range(k)], -1)
    return cells.flatten(1, 2)


def bridge(width: int, merge: int, hidden: int) -> nn.Sequential:
    """``img_txt_bridge``: [.., width*merge^2] -> [.., hidden]."""
    return nn.Sequential(nn.Linear(width * merge * merge, hidden), nn.GELU(), nn.Linear(hidden, hidden))
