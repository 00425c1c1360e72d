"""The whole model, assembled under the official names."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from groma_training import names
from groma_training.config import GromaConfig, LlmConfig
from groma_training.model.bridge import bridge, merge_cells
from groma_training.model.encoder import Encoder, patch_map
from groma_training.model.proposer import Proposals, Proposer
from groma_training.model.region_encoder import RegionEncoder
from groma_training.tokens import SpecialIds

PROPOSER_STATES = 4  # the proposer reads the mean of this many last states


class Perceiver(Proposer):
    """``perceiver``: image encoder and proposer."""

    def __init__(self, c: GromaConfig) -> None:
        super().__init__(c.proposer, c.vision.hidden_size)
        self.vis_encoder = Encoder(c.vision)
        self.side = c.side

    def seen(self, states: list[Tensor]) -> Tensor:
        """What the proposer reads of states [B,1+N,D], at least the last four: [B,D,side,side]."""
        return patch_map(torch.stack([s.float() for s in states[-PROPOSER_STATES:]]).mean(0), self.side)

    def propose(self, states: list[Tensor], trace: bool = False) -> Proposals:
        """states [B,1+N,D], at least the last four."""
        return self.propose_from(self.seen(states), trace)

    def propose_from(self, seen: Tensor, trace: bool = False) -> Proposals:
        """[B,D,side,side] -> proposals."""
        return super().forward(seen, trace)

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
        low = F.linear(x, self.lora_A.weight.to(x.dtype))
        return F.linear(x, self.weight.to(x.dtype)) + F.linear(low, self.lora_B.weight.to(x.dtype)) * self.scale


def llama(c: LlmConfig) -> LlamaForCausalLM:
    """transformers' Llama; eager attention, because packed questions need a mask of their own and sequences are short."""
    config = LlamaConfig(
        vocab_size=c.vocab_size, hidden_size=c.hidden_size, intermediate_size=c.intermediate_size,
        num_hidden_layers=c.num_hidden_layers, num_attention_heads=c.num_attention_heads,
        num_key_value_heads=c.num_key_value_heads or c.num_attention_heads, head_dim=c.head_dim,
        rms_norm_eps=c.rms_norm_eps, rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        max_position_embeddings=c.max_position_embeddings, tie_word_embeddings=c.tie_word_embeddings,
        bos_token_id=c.bos_token_id, eos_token_id=c.eos_token_id, pad_token_id=None, attn_implementation="eager")
    return LlamaForCausalLM(config)


class Groma(nn.Module):
    """Encoder, proposer, region encoder, bridge and language model."""

    def __init__(self, c: GromaConfig) -> None:
        super().__init__()
        self.c, self.side = c, c.side
        width, hidden = c.vision.hidden_size, c.llm.hidden_size
        self.perceiver = Perceiver(c)
        self.img_txt_bridge = bridge(width, c.image_token_merge, hidden)
        self.region_encoder = RegionEncoder(c.region, width, hidden)
        self.llm = llama(c.llm)
        self.new_input_embs = nn.Embedding(c.num_new_token, hidden)
        self.extra_lm_head = nn.Linear(hidden, c.num_new_token, bias=False)

    def image_tokens(self, states: list[Tensor]) -> Tensor:
        """States of the whole encoder [B,1+N,D] -> [B,(side/k)^2,H]."""
        state = states[self.c.vis_output_layer].to(self.img_txt_bridge[0].weight.dtype)
        return self.img_txt_bridge(merge_cells(state, self.side, self.c.image_token_merge))

    def region_tokens(self, states: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """Boxes B x [R,4] in centre form -> tokens [sum R,H]."""
        return self.region_encoder(states, boxes)

    def regions_show(self, states: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """``RegionEncoder.shows`` of boxes B x [R,4]: [sum R,H]."""
        return self.region_encoder.shows(states, boxes)

    def embed(self, ids: Tensor) -> Tensor:
        """[T] -> [T,H]; ids beyond the base vocabulary read the new tokens' own table."""
        base = self.c.llm.vocab_size
        new = ids >= base
        old = self.llm.model.embed_tokens(ids.masked_fill(new, 0))
        if not self.c.num_new_token:
            return old
        return torch.where(new[:, None], self.new_input_embs((ids - base).clamp(min=0)).to(old.dtype), old)

    def prompt(self, ids: Tensor, special: SpecialIds, image: Tensor, regions: Tensor, match: Tensor) -> Tensor:
        """Expanded ids [T] -> [T,H] with image [n,H] and region tokens [R,H] in their places; the k-th <refer_feat>
        takes region ``match[k]``."""
        x = self.embed(ids)
        for token, rows in ((special.image, image), (special.region, regions), (special.refer_feat, regions[match])):
            at = (ids == token).nonzero()[:, 0]
            x = x.index_copy(0, at, rows[: len(at)].to(x.dtype))
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """[..,H] after the final norm -> [..,V+new]."""
        old = self.llm.lm_head(hidden)
        return torch.cat([old, F.linear(hidden, self.extra_lm_head.weight.to(hidden.dtype))], -1)

    def add_lora(self, rank: int, alpha: float, targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")) -> None:
        """Puts a LoRA pair beside the named matrices of every decoder layer."""
        for layer in self.llm.model.layers:
            for name in targets:
                holder = layer.self_attn if hasattr(layer.self_attn, name) else layer.mlp
                setattr(holder, name, LoraLinear(getattr(holder, name), rank, alpha))


def load_tensors(folder: str | Path, with_bases: bool = True) -> dict[str, Tensor]:
    """A model folder's tensors in f32 under canonical names; what it lacks comes from the frozen bases if asked."""
    folder = Path(folder)
    index = folder / "model.safetensors.index.json"
    files = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
    own = {k: v.float() for f in files for k, v in load_file(folder / f).items()}
    own = names.canonical(own)
    if with_bases and "perceiver.vis_encoder.embeddings.cls_token" not in own:
        from groma_training import bases

        encoder = {"perceiver.vis_encoder." + k: v for k, v in bases.encoder_tensors().items()}
        own = {**encoder, **bases.decoder_tensors(), **own}
    return own


def load_groma(folder: str | Path, keep_lora: bool = False, with_bases: bool = True) -> Groma:
    """A model folder as modules, LoRA folded into the matrices unless it is to be trained on."""
    c = GromaConfig.load(folder)
    tensors = load_tensors(folder, with_bases)
    model = Groma(c)
    pairs = [k for k in tensors if k.endswith(".lora_A.weight")]
    if pairs and keep_lora:
        rank = tensors[pairs[0]].shape[0]
        model.add_lora(rank, c.lora_alpha or rank, tuple(sorted({k.split(".")[-3] for k in pairs})))
    else:
        tensors = names.merge_lora(tensors, c.lora_alpha)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = [k for k in missing if not _may_lack(k, c)]
    if missing or unexpected:
        raise ValueError(f"{folder}: missing {missing[:4]} ({len(missing)}), unknown {unexpected[:4]} ({len(unexpected)})")
    return model.eval()


def _may_lack(name: str, c: GromaConfig) -> bool:
    tied = c.llm.tie_word_embeddings and name == "llm.lm_head.weight"
    return tied or name.endswith("embeddings.mask_token") or name.startswith("perceiver.vis_encoder.layernorm.")
