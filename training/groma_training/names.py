"""Tensor names of a checkpoint: aliases of the box and score heads, and LoRA pairs.

The proposer's heads are registered twice upstream, so a file may hold them with or without ``decoder.``; heads that
all layers share may be stored under index 0 only. Everything here works on plain name -> tensor dictionaries.
"""

from __future__ import annotations

from torch import Tensor

TRANSFORMER = "perceiver.ddetr_transformer."
HEADS = ("bbox_embed.", "class_embed_coco.", "class_embed_sa1b.", "class_embed_enc.")


def canonical(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors with head aliases resolved to the names without ``decoder.``."""
    out = {}
    for name, value in tensors.items():
        if name.startswith(TRANSFORMER + "decoder."):
            tail = name[len(TRANSFORMER + "decoder.") :]
            if tail.startswith(HEADS):
                out.setdefault(TRANSFORMER + tail, value)
                continue
        if not name.endswith("rotary_emb.inv_freq"):
            out[name] = value
    return out


def merge_lora(tensors: dict[str, Tensor], alpha: float | None) -> dict[str, Tensor]:
    """Folds every LoRA pair into its matrix: W + alpha/r * B A; without ``alpha`` the factor is 1."""
    out = dict(tensors)
    for name in list(tensors):
        if not name.endswith(".lora_A.weight"):
            continue
        stem = name[: -len(".lora_A.weight")]
        a, b = out.pop(name), out.pop(stem + ".lora_B.weight")
        factor = 1.0 if alpha is None else alpha / a.shape[0]
        out[stem + ".weight"] = out[stem + ".weight"].float() + factor * (b.float() @ a.float())
    return out


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix``, without it."""
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
