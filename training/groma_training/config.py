"""config.json of a Groma checkpoint: every key it may leave out, with its value.

The defaults are upstream's (an official config.json lists only what differs from them); the keys of
``region_encoder_cfg``, ``image_size``, ``image_token_merge``, ``chat_template`` and ``lora_alpha`` are this
project's extensions, and their absence means the original behaviour.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class VisionConfig:
    """DINOv2."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    mlp_ratio: float = 4
    layer_norm_eps: float = 1e-6
    image_size: int = 224
    patch_size: int = 16
    use_swiglu_ffn: bool = False


@dataclass(frozen=True)
class ProposerConfig:
    """Deformable DETR."""

    d_model: int = 256
    num_queries: int = 300
    two_stage_num_proposals: int = 300
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_ffn_dim: int = 1024
    decoder_ffn_dim: int = 1024
    encoder_attention_heads: int = 8
    decoder_attention_heads: int = 8
    encoder_n_points: int = 4
    decoder_n_points: int = 4
    num_feature_levels: int = 4
    two_stage: bool = False
    with_box_refine: bool = False


@dataclass(frozen=True)
class LlmConfig:
    """Llama."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    head_dim: int | None = None
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 2048
    bos_token_id: int = 1
    eos_token_id: int | list[int] = 2


@dataclass(frozen=True)
class RegionConfig:
    """Region encoder; ``embed_dims`` None means the encoder's width."""

    embed_dims: int | None = None
    hidden_dims: int = 1024
    pos_dims: int = 256
    num_groups: int = 64
    num_fuse: int = 5
    roi_size: int = 14
    level_scales: tuple[int, ...] = (4, 2, 1)
    featmap_strides: tuple[float, ...] = (14 / 8, 14 / 4, 14 / 2)
    box_format: str = "cxcywh"


@dataclass(frozen=True)
class GromaConfig:
    """The whole of config.json, defaults filled in."""

    vision: VisionConfig
    proposer: ProposerConfig
    llm: LlmConfig
    region: RegionConfig
    vis_output_layer: int = -1
    nms_thres: float = 0.6
    box_score_thres: float = 0.15
    max_region_num: int = 100
    num_new_token: int = 0
    image_size: int = 448
    image_token_merge: int = 2
    chat_template: str = "vicuna"
    lora_alpha: float | None = None
    raw: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def side(self) -> int:
        """Patches per image side."""
        return self.image_size // self.vision.patch_size

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> GromaConfig:
        perceiver = raw["perceiver_cfg"]
        top = ("nms_thres", "box_score_thres", "max_region_num", "num_new_token", "image_size", "image_token_merge",
               "chat_template", "lora_alpha")
        region = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.get("region_encoder_cfg", {}).items()}
        config = cls(
            vision=_pick(VisionConfig, perceiver["vis_encoder_cfg"]),
            proposer=_pick(ProposerConfig, perceiver["ddetr_cfg"]),
            llm=_pick(LlmConfig, raw["llm_cfg"]),
            region=_pick(RegionConfig, region),
            vis_output_layer=perceiver.get("vis_output_layer", -1),
            raw=raw,
            **{k: raw[k] for k in top if k in raw},
        )
        if config.vision.use_swiglu_ffn:
            raise ValueError("use_swiglu_ffn is not part of Groma: expected false")
        if config.proposer.two_stage and not config.proposer.with_box_refine:
            raise ValueError("two_stage needs with_box_refine (upstream's config class refuses it too)")
        if config.max_region_num > 100:
            raise ValueError(f"max_region_num is {config.max_region_num}, but there are only 100 index tokens")
        return config

    @classmethod
    def load(cls, path: str | Path) -> GromaConfig:
        """``path``: config.json or the folder that holds it."""
        path = Path(path)
        with open(path / "config.json" if path.is_dir() else path) as f:
            return cls.from_dict(json.load(f))


def _pick(kind: type, raw: dict[str, Any]) -> Any:
    return kind(**{k: raw[k] for k in kind.__dataclass_fields__ if raw.get(k) is not None})
