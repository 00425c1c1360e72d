r"""Weights between two of one history: what finds and names regions gains from standing between both ends of a run.

    python -m groma_training.blend --old models/groma-s/model.safetensors --new RUNS/stage1/checkpoint.pt --share 0.25 \
        --out eyes.safetensors

Perceiver and region encoder alone: what the language model has learnt it has learnt behind the newer ones.  ``export`` and
``start`` take the file last.  Which share is best must be read off photos that no figure is reported on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from groma_training.files import write_whole
from groma_training.weights import read_weights

EYES = ("perceiver.", "region_encoder.")


def blend(old: dict[str, Tensor], new: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """The eyes' tensors that both have: ``share`` of the old one, the rest of the new one."""
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share is {share}, not between 0 and 1")
    both = [name for name in new if name.startswith(EYES) and name in old]
    if not both:
        raise ValueError("no tensor of a perceiver or region encoder is in both")
    for name in both:
        if old[name].shape != new[name].shape:
            raise ValueError(f"{name}: {tuple(old[name].shape)} in one, {tuple(new[name].shape)} in the other")
    return {name: share * old[name] + (1 - share) * new[name] for name in both}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, help="model.safetensors, a run's checkpoint or a model folder")
    parser.add_argument("--new", required=True, help="the same")
    parser.add_argument("--share", required=True, type=float, help="of the old weights, 0 to 1")
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    mixed = blend(read_weights(options.old), read_weights(options.new), options.share)
    halves = {name: value.half().contiguous() for name, value in mixed.items()}
    write_whole(options.out, lambda part: save_file(halves, part, metadata={"format": "pt"}))
    print(f"{options.out}: {len(halves)} tensors")


if __name__ == "__main__":
    main()
