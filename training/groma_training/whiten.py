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
from groma_training.model.bridge import merge_cells
from groma_training.model.groma import Groma
from groma_training.views import to_input, view

EPSILON = 1e-6
SILENT = 0.05  # of the last matrix's usual size: about what trained weights have
NOTHING = -2  # the label of regions without an object, as in `proposer`


@torch.no_grad()
def start(model: nn.Module, photos: list[Photo], c: GromaConfig, count: int = 48, seed: int = 0) -> None:
    """Sets the first projections of ``model`` (a ``proposer.Stage1``) from ``count`` photos."""
    store, rng = PhotoStore(), random.Random(seed)
    rows = []
    for photo in rng.sample(photos, min(count, len(photos))):
        states = model.states(view(photo, store, c.image_size).pixels[None].to(device_of(model)))
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
    conv.weight[:, :, 1, 1] += torch.linalg.qr(torch.randn(conv.weight.shape[:2]))[0].to(conv.weight)
    if conv.bias is not None:
        conv.bias.zero_()


def standardise_projection(conv: nn.Conv2d | nn.ConvTranspose2d, feature: Tensor) -> None:
    """Folds (x - mean) / deviation of ``feature`` [n,D] into the projection.

    A transposed convolution starts with equal taps (nearest upsampling), or its one bias could not centre all of them.
    """
    mean, deviation = feature.mean(0), feature.std(0).clamp(min=1e-3)
    if isinstance(conv, nn.ConvTranspose2d):
        w = torch.randn(conv.weight.shape[:2]).to(feature) / conv.weight.shape[0] ** 0.5 / deviation[:, None]
        conv.weight.copy_(w[:, :, None, None].expand_as(conv.weight))
        conv.bias.copy_(-(w.T @ mean))
    else:
        conv.weight.div_(deviation[None, :, None, None])
        conv.bias.copy_(-(conv.weight.sum((2, 3)) @ mean))


@torch.no_grad()
def bridge_start(g: Groma, photos: list[Photo], centre: Tensor, count: int = 16, seed: int = 0) -> None:
    """The image bridge begins on standardised cells and almost silent, around ``centre`` [H] of the nouns: loud random image
    tokens break what the decoder has learnt about regions."""
    store, rng, rows = PhotoStore(), random.Random(seed), []
    for photo in rng.sample(photos, min(count, len(photos))):
        pixels = view(photo, store, g.c.image_size).pixels[None].to(device_of(g))
        encoder = g.perceiver.vis_encoder
        state = encoder(to_input(pixels).to(encoder.embeddings.cls_token.dtype))[g.c.vis_output_layer]
        rows.append(merge_cells(state.float(), g.side, g.c.image_token_merge)[0])
    cells = torch.cat(rows)
    mean, deviation = cells.mean(0), cells.std(0).clamp(min=1e-3)
    first, last = g.img_txt_bridge[0], g.img_txt_bridge[2]
    first.weight.div_(deviation)
    first.bias.copy_(-(first.weight @ mean))
    last.weight.mul_(SILENT)
    last.bias.copy_(centre)


class Ridge:
    """Weighted ridge regression that takes its rows piece by piece: y ~ W x + b."""

    def __init__(self, width: int, out: int, device: torch.device | None = None) -> None:
        self.gram = torch.zeros(width + 1, width + 1, dtype=torch.double, device=device)
        self.cross = torch.zeros(width + 1, out, dtype=torch.double, device=device)

    def add(self, x: Tensor, y: Tensor, weight: Tensor) -> None:
        """x [n,width], y [n,out], weight [n]."""
        x1 = torch.cat([x, torch.ones_like(x[:, :1])], 1).double()
        self.gram += (x1 * weight.double()[:, None]).T @ x1
        self.cross += (x1 * weight.double()[:, None]).T @ y.double()

    def solve(self, strength: float) -> tuple[Tensor, Tensor]:
        """-> W [out,width], b [out]."""
        eye = torch.eye(len(self.gram), dtype=torch.double, device=self.gram.device)
        solved = torch.linalg.solve(self.gram + strength * self.gram.diagonal().mean() * eye, self.cross).float()
        return solved[:-1].T.contiguous(), solved[-1]


@torch.no_grad()
def ridge_start(model: nn.Module, batches: list, strength: float = 0.3) -> float:
    """Solves ``flatten_linear`` so that regions lie at their nouns, by ridge regression over ``batches`` (of
    ``proposer.collate``); returns how often the nearest noun is then the right one, on the same regions.

    Gradients alone need hundreds of steps to get here, and until then they teach the encoder little.
    """
    nouns, roi, device = model.nouns, model.region_encoder.roi_align, device_of(model)
    inverse = torch.linalg.pinv(roi.updims.weight.float())
    vectors = nouns.vectors.to(device)
    ridge, reads, labels = Ridge(*roi.flatten_linear.weight.shape[::-1], device), [], []
    for batch, share in batches:
        states = model.states(batch.pixels.to(device))
        maps = model.region_encoder.mlvl_fuse(model.region_encoder.maps(states))
        label, share = batch.labels.to(device), share.to(device)
        known = label >= 0
        keep = known | (label == NOTHING)
        noun = torch.where(known[:, None], vectors[label.clamp(min=0)], 0.0)
        read = roi.read(maps, [r.to(device) for r in batch.regions])[keep]
        ridge.add(read, (noun @ inverse.T)[keep], torch.where(known, share[label.clamp(min=0)], 0.3)[keep])
        reads.append(read)
        labels.append(label[keep])
    weight, bias = ridge.solve(strength)
    roi.flatten_linear.weight.copy_(weight)
    roi.flatten_linear.bias.copy_(bias)
    shown, label = roi.flatten_linear(torch.cat(reads)) @ roi.updims.weight.T, torch.cat(labels)
    known = label >= 0
    return float((nouns.distances(shown[known]).argmin(1) == label[known]).float().mean())


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
