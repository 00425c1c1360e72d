"""Region proposer: class-agnostic Deformable DETR with two score heads, official tensor names.

``class_embed_coco`` and ``class_embed_sa1b`` are fused into one score, sigmoid(coco)^0.4 * sigmoid(sa1b)^0.6.
Upstream's decoder never moves its reference points: every layer looks around the first ones, and only the heads of the
last two layers shape the final box. ``Proposals.layers`` repeats that for every layer, so that each can be taught.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from groma_training.boxes import inverse_sigmoid
from groma_training.config import ProposerConfig
from groma_training.model.deformable import (
    BoxHead,
    DecoderLayer,
    EncoderLayer,
    cell_centres,
    input_projection,
    sine_position,
    sine_terms,
)

COCO_SHARE, SA1B_SHARE = 0.4, 0.6
NO_OBJECT_BIAS = -3.0


@dataclass
class Layer:
    """What one decoder layer says: logits [B,Q], boxes [B,Q,4] in centre form."""

    coco: Tensor
    sa1b: Tensor
    boxes: Tensor


@dataclass
class Proposals:
    """The decoder layers' answers, and in two-stage models the first stage's over all T places."""

    layers: list[Layer]
    first_logit: Tensor | None = None  # [B,T]
    first_boxes: Tensor | None = None  # [B,T,4]
    places: Tensor | None = None  # [T,4]: cell centre and the level's own box size
    trace: dict[str, Tensor] | None = None

    @property
    def boxes(self) -> Tensor:
        return self.layers[-1].boxes

    @property
    def scores(self) -> Tensor:
        """Fused scores [B,Q]."""
        last = self.layers[-1]
        return last.coco.sigmoid() ** COCO_SHARE * last.sa1b.sigmoid() ** SA1B_SHARE


class Stack(nn.Module):
    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


def score_head(d: int) -> nn.Linear:
    head = nn.Linear(d, 1)
    nn.init.normal_(head.weight, std=0.02)
    nn.init.constant_(head.bias, NO_OBJECT_BIAS)
    return head


class Transformer(nn.Module):
    """``ddetr_transformer``."""

    def __init__(self, c: ProposerConfig) -> None:
        super().__init__()
        d, self.c = c.d_model, c
        self.encoder = Stack([EncoderLayer(d, c.encoder_attention_heads, c.num_feature_levels, c.encoder_n_points,
                                           c.encoder_ffn_dim) for _ in range(c.encoder_layers)])
        self.decoder = Stack([DecoderLayer(d, c.decoder_attention_heads, c.num_feature_levels, c.decoder_n_points,
                                           c.decoder_ffn_dim) for _ in range(c.decoder_layers)])
        self.level_embed = nn.Parameter(torch.zeros(c.num_feature_levels, d))
        self.query_position_embeddings = nn.Embedding(c.num_queries, d if c.two_stage else 2 * d)
        nn.init.normal_(self.query_position_embeddings.weight, std=0.02)
        heads = c.decoder_layers if c.with_box_refine else 1
        self.class_embed_enc = score_head(d)  # upstream registers it in one-stage models too, unused
        self.class_embed_coco = nn.ModuleList([score_head(d) for _ in range(heads)])
        self.class_embed_sa1b = nn.ModuleList([score_head(d) for _ in range(heads)])
        self.bbox_embed = nn.ModuleList([BoxHead(d) for _ in range(heads + (1 if c.two_stage else 0))])
        if c.two_stage:
            self.enc_output = nn.Linear(d, d)
            self.enc_output_norm = nn.LayerNorm(d)
            self.pos_trans = nn.Linear(2 * d, 2 * d)
            self.pos_trans_norm = nn.LayerNorm(2 * d)
        else:
            self.reference_points = nn.Linear(d, 2)

    def forward(self, maps: list[Tensor], trace: bool = False) -> Proposals:
        """maps: one [B,d,h,w] a level, finest first."""
        c, seen = self.c, {}
        shapes = [tuple(m.shape[-2:]) for m in maps]
        b, device = len(maps[0]), maps[0].device
        x = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
        position = torch.cat([sine_position(h, w, c.d_model, device) + self.level_embed[level]
                              for level, (h, w) in enumerate(shapes)])
        centre = torch.cat([cell_centres(h, w, device) for h, w in shapes])
        for i, layer in enumerate(self.encoder.layers):
            x = layer(x, position, centre[None].expand(b, -1, -1), shapes)
            seen[f"det.enc{i}"] = x
        table = self.query_position_embeddings.weight
        out = Proposals([])
        if c.two_stage:
            query_position, reference = self._first_stage(x, shapes, centre, out, seen)
            y = table[None].expand(b, -1, -1)
        else:
            query_position, y = (t[None].expand(b, -1, -1) for t in table.split(c.d_model, 1))
            reference = self.reference_points(query_position).float().sigmoid()
        seen.update({"det.pos": position[None], "det.ref": reference, "det.qpos": query_position})
        self._decode(x, shapes, y, query_position, reference, out, seen)
        out.trace = seen if trace else None
        return out

    def _first_stage(self, memory: Tensor, shapes: list[tuple[int, int]], centre: Tensor, out: Proposals,
                     seen: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        c = self.c
        sides = torch.cat([centre.new_full((h * w, 2), 0.05 * 2.0**level) for level, (h, w) in enumerate(shapes)])
        places = torch.cat([centre, sides], -1)
        # Places at the border count as invalid, but compete all the same, with a constant feature and a box of all ones.
        valid = ((places > 0.01) & (places < 0.99)).all(-1, keepdim=True)
        feature = self.enc_output_norm(self.enc_output(memory.masked_fill(~valid, 0.0)))
        logit = self.class_embed_enc(feature)[..., 0].float()
        boxes = torch.sigmoid(self.bbox_embed[-1](feature).float() + torch.logit(places))
        boxes = torch.where(valid, boxes, torch.ones_like(boxes))
        best = torch.sort(logit, dim=1, descending=True, stable=True).indices[:, : c.two_stage_num_proposals]
        reference = boxes.gather(1, best[..., None].expand(-1, -1, 4)).detach()
        terms = sine_terms(reference * (2 * math.pi), c.d_model // 2).flatten(-2)
        position = self.pos_trans_norm(self.pos_trans(terms))[..., : c.d_model]
        out.first_logit, out.first_boxes, out.places = logit, boxes, places
        seen.update({"det.obj": feature, "det.enc_class": logit, "det.topk": best})
        return position, reference

    def _decode(self, memory: Tensor, shapes: list[tuple[int, int]], y: Tensor, position: Tensor, reference: Tensor,
                out: Proposals, seen: dict[str, Tensor]) -> None:
        base = reference
        for i, layer in enumerate(self.decoder.layers):
            y = layer(y, position, memory, reference, shapes)
            head = i if self.c.with_box_refine else 0
            shift = self.bbox_embed[head](y).float()
            out.layers.append(Layer(self.class_embed_coco[head](y)[..., 0].float(),
                                    self.class_embed_sa1b[head](y)[..., 0].float(), _moved(shift, base)))
            seen[f"det.dec{i}"] = y
            # The next layer's box is measured from this layer's shift of the *first* reference.
            base = _moved(shift, reference) if self.c.with_box_refine else reference


def _moved(shift: Tensor, base: Tensor) -> Tensor:
    """sigmoid(shift + inverse_sigmoid(base)); a two-number base moves only the centre."""
    start = inverse_sigmoid(base)
    if base.shape[-1] == 2:
        start = torch.cat([start, torch.zeros_like(start)], -1)
    return torch.sigmoid(shift + start)


class Proposer(nn.Module):
    """``perceiver.input_proj`` and ``perceiver.ddetr_transformer``."""

    def __init__(self, c: ProposerConfig, width: int) -> None:
        super().__init__()
        levels = c.num_feature_levels
        self.input_proj = nn.ModuleList([input_projection(width, c.d_model, levels, i) for i in range(levels)])
        self.ddetr_transformer = Transformer(c)

    def forward(self, feature: Tensor, trace: bool = False) -> Proposals:
        """feature [B,D,h,w]: the mean of the encoder's last four states."""
        maps = [project(feature) for project in self.input_proj]
        out = self.ddetr_transformer(maps, trace)
        if out.trace is not None:
            out.trace.update({f"det.src{i}": m for i, m in enumerate(maps)})
        return out
