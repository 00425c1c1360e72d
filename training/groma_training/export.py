"""A model folder from runs: config.json, model.safetensors (f16, official names), tokenizer_additions.json, bases.json.

    python -m groma_training.export --config configs/groma-s.toml --stage align --start RUNS/… --out models/groma-s

Only what differs from the frozen bases is written: encoder blocks that were tuned, the proposer, the region encoder, the
bridge, the new tokens, and LoRA pairs beside the decoder's matrices.  `bases.json` says where the rest comes from; a tensor
in the folder wins over the base's.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from groma_training import bases
from groma_training.align import build
from groma_training.config import GromaConfig
from groma_training.data.photo import read_jsonl
from groma_training.files import write_text, write_whole
from groma_training.model.groma import Groma
from groma_training.settings import load_settings
from groma_training.tokens import ADDED_TOKENS


def own_tensors(g: Groma) -> dict[str, Tensor]:
    """Everything that the bases do not hold with the same values, in f16."""
    base = {"perceiver.vis_encoder." + k: v for k, v in bases.encoder_tensors().items()} | bases.decoder_tensors()
    out = {}
    for name, value in g.state_dict().items():
        if name in base and torch.equal(value.float(), base[name]):
            continue
        if name == "llm.lm_head.weight" or name.endswith("embeddings.mask_token"):  # tied; unused
            continue
        half = value.detach().to(torch.float16).contiguous()
        if not torch.isfinite(half).all():
            raise ValueError(f"{name} does not fit into f16")
        out[name] = half
    return out


def write_folder(g: Groma, out: Path, changes: dict | None = None) -> int:
    """Writes the folder, returns the weights' size in bytes."""
    tensors = own_tensors(g)
    write_whole(out / "model.safetensors", lambda part: save_file(tensors, part, metadata={"format": "pt"}))
    _write(out / "config.json", {**g.c.raw, **(changes or {})})
    vocabulary = g.c.llm.vocab_size
    _write(out / "tokenizer_additions.json", {
        "base_vocab": vocabulary, "first_id": vocabulary, "special": True, "lstrip": False, "rstrip": False,
        "normalized": False, "tokens": ADDED_TOKENS})
    if (out / "bases.json").resolve() != bases.SOURCES:
        shutil.copyfile(bases.SOURCES, out / "bases.json")
    return (out / "model.safetensors").stat().st_size


def _write(path: Path, value: dict) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, type=Path)
    parser.add_argument("--stage", default="align")
    parser.add_argument("--model", help="folder with config.json, if not the configuration's")
    parser.add_argument("--start", nargs="*", help="runs' checkpoints or model folders, later ones win")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="keys of config.json")
    options = parser.parse_args()
    s = load_settings(options.config, options.stage, [f"model={options.model}"] if options.model else [])
    s = replace(s, start=options.start if options.start is not None else s.start)
    photos = [p for path in s.photos for p in read_jsonl(path)]
    speaker, _, _ = build(s, photos)
    changes = dict(item.split("=", 1) for item in options.set)
    changes = {k: json.loads(v) for k, v in changes.items()}
    GromaConfig.from_dict({**speaker.groma.c.raw, **changes})
    size = write_folder(speaker.groma, options.out, changes)
    print(f"{options.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
