"""Cached encoder states of whole photos, for stages that leave the encoder alone.

    python -m groma_training.features --config configs/groma-s.toml --photos corpus.jsonl --out FOLDER

f16, one memory-mapped file ``states.npy`` [photos,k,1+N,D] with the last ``k`` states, and ``index.json`` with the ids
done so far.  It grows photo by photo, is resumed by the same command, and can be read while it grows.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from groma_training import bases
from groma_training.config import GromaConfig
from groma_training.data.photo import Photo, PhotoStore, read_jsonl
from groma_training.model.encoder import Encoder
from groma_training.run import averaged, half_type
from groma_training.settings import load_settings
from groma_training.views import square, to_input

STATES = 4


class FeatureCache:
    """Reads what ``build`` wrote: ``cache[photo.id]`` -> f32 [k,1+N,D]."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.at: dict[str, int] = {}
        self.refresh()
        self._states = np.load(self.folder / "states.npy", mmap_mode="r")

    def refresh(self) -> None:
        ids = json.loads((self.folder / "index.json").read_text())["ids"]
        self.at = {key: i for i, key in enumerate(ids)}

    def __contains__(self, key: str) -> bool:
        return key in self.at

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self._states[self.at[key]].astype(np.float32))


def build(encoder: Encoder, photos: list[Photo], c: GromaConfig, folder: Path, *, stamp: str, every: int = 25,
          device: str = "cpu") -> int:
    """Computes what is missing; ``stamp`` names the encoder's weights, so that caches of another are refused."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(photos), STATES, 1 + c.side**2, c.vision.hidden_size)
    path, index = folder / "states.npy", folder / "index.json"
    done: list[str] = []
    if index.exists():
        known = json.loads(index.read_text())
        if known["stamp"] != stamp:
            raise ValueError(f"{folder} holds states of {known['stamp']}, not of {stamp}: remove it or choose another folder")
        done = known["ids"]
    states = np.lib.format.open_memmap(path, "r+" if path.exists() else "w+", np.float16, shape)
    store, seen = PhotoStore(), set(done)

    def flush() -> None:
        states.flush()
        part = index.with_suffix(".part")
        part.write_text(json.dumps({"stamp": stamp, "ids": done}))
        part.replace(index)

    for photo in photos:
        if photo.id in seen:
            continue
        pixels = square(store.open(photo), c.image_size).to(device)
        with torch.no_grad():
            last = encoder(to_input(pixels[None]).to(encoder.embeddings.cls_token.dtype))[-STATES:]
        states[len(done)] = torch.stack([s[0].float() for s in last]).half().cpu().numpy()
        done.append(photo.id)
        if len(done) % every == 0:
            flush()
    flush()
    return len(done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, type=Path)
    parser.add_argument("--photos", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--run", type=Path, help="checkpoint of stage 1, where the encoder was tuned")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    s = load_settings(options.config, "align")
    torch.set_num_threads(s.threads)
    c = GromaConfig.load(s.model)
    encoder, stamp = Encoder(c.vision), "base"
    encoder.load_state_dict(bases.encoder_tensors(), strict=False)
    if options.run:
        values, notes = averaged(options.run)
        prefix = "perceiver.vis_encoder."
        encoder.load_state_dict({k[len(prefix):]: v for k, v in values.items() if k.startswith(prefix)}, strict=False)
        stamp = f"step {notes['step']}"
    started = time.time()
    count = build(encoder.to(options.device, half_type()).eval(), list(read_jsonl(options.photos)), c, options.out,
                  stamp=stamp, device=options.device)
    print(f"{count} photos, {time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
