"""A start that sees through the encoder's constant channels.

DINOv2's un-normed states have a few huge, nearly constant channels.  Whatever normalises after a projection
(GroupNorm in the region encoder, channel LayerNorm in the proposer) would see little else, so the first projections
start on centred channels, whitened or standardised.  Only initial values change; the format does not.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from groma_training.config import GromaConfig
from groma_training.data.photo import Photo, PhotoStore
from groma_training.views import view

EPSILON = 1e-6


@torch.no_grad()
def start(model: nn.Module, photos: list[Photo], c: GromaConfig, count: int = 48, seed: int = 0) -> None:
    """Sets the first projections of ``model`` (a ``proposer.Stage1``) from ``count`` photos."""
    store, rng = PhotoStore(), random.Random(seed)
    rows = []
    for photo in rng.sample(photos, min(count, len(photos))):
        states = model.states(view(photo, store, c.image_size).pixels[None])
        rows.append(torch.stack([s[0, 1::5].float() for s in states[-4:]]))
    states = torch.cat(rows, 1)  # [4,n,D]
    fuse = model.region_encoder.mlvl_fuse
    for conv, state in zip(fuse.input_conv, states[-len(fuse.input_conv) :], strict=True):
        whiten_projection(conv, state)
    for conv in [f.conv for f in fuse.fuse_convs] + list(model.region_encoder.roi_align.pconvs):
        near_identity(conv)
    mean = states.mean(0)
    for projection in model.perceiver.input_proj:
        standardise_projection(projection[0], mean)


def whiten_projection(conv: nn.Conv2d, state: Tensor) -> None:
    """A 1x1 convolution over D+2 channels starts as the principal directions of ``state`` [n,D], unit variance each."""
    mean, width = state.mean(0), conv.weight.shape[0]
    value, vector = torch.linalg.eigh(torch.cov(state.T))
    w = (vector[:, -width:] / value[-width:].clamp(min=EPSILON).sqrt()).T
    conv.weight.zero_()
    conv.weight[:, : state.shape[1], 0, 0] = w
    conv.weight[:, state.shape[1] :].normal_(std=0.1)
    conv.bias.copy_(-w @ mean)


def near_identity(conv: nn.Conv2d) -> None:
    """A 3x3 convolution starts as a rotation of its channels plus a little of its usual noise."""
    conv.weight.mul_(0.2)
    conv.weight[:, :, 1, 1] += torch.linalg.qr(torch.randn(conv.weight.shape[:2]))[0]
    if conv.bias is not None:
        conv.bias.zero_()


def standardise_projection(conv: nn.Conv2d | nn.ConvTranspose2d, feature: Tensor) -> None:
    """Folds (x - mean) / deviation of ``feature`` [n,D] into the projection.

    A transposed convolution starts with equal taps (nearest upsampling), or its one bias could not centre all of them.
    """
    mean, deviation = feature.mean(0), feature.std(0).clamp(min=1e-3)
    if isinstance(conv, nn.ConvTranspose2d):
        w = torch.randn(conv.weight.shape[:2]) / conv.weight.shape[0] ** 0.5 / deviation[:, None]
        conv.weight.copy_(w[:, :, None, None].expand_as(conv.weight))
        conv.bias.copy_(-(w.T @ mean))
    else:
        conv.weight.div_(deviation[None, :, None, None])
        conv.bias.copy_(-(conv.weight.sum((2, 3)) @ mean))
