"""Weights that a stage starts from, and small checkpoints that a repository can hold.

    python -m groma_training.weights --run RUNS/stage1/checkpoint.pt --stage proposer --out DIR

A run's own ``checkpoint.pt`` has the optimiser's state and is several times larger.  What is written here are the averaged
weights in f16: a stage that names the file in ``start`` goes on from them, with a fresh optimiser and its warm-up.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from groma_training.files import write_whole
from groma_training.model.groma import load_groma
from groma_training.run import averaged

SCAFFOLDING = ("patch_norm.", "patch_head.")  # of stage 1; cheap to learn again


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """From a run's checkpoint, a small checkpoint (.safetensors) or a model folder: official name -> f32 tensor."""
    path = Path(path)
    if path.is_dir():
        return dict(load_groma(path, keep_lora=True).named_parameters())
    if path.suffix == ".safetensors":
        return {k: v.float() for k, v in load_file(path).items()}
    return {k.removeprefix("groma."): v for k, v in averaged(path)[0].items()}


def write_small(run: Path, out: Path, stage: str) -> dict[str, str]:
    """Averaged weights of ``run`` in f16, with step and seed in the file's metadata, which is returned."""
    values, notes = averaged(run)
    kept = {k.removeprefix("groma."): v.half().contiguous() for k, v in values.items() if not k.startswith(SCAFFOLDING)}
    metadata = {"format": "pt", "stage": stage, "step": str(notes["step"]), "seed": str(notes["seed"])}
    write_whole(out / f"{stage}.safetensors", lambda part: save_file(kept, part, metadata=metadata))
    return metadata


def describe(path: str | Path) -> dict[str, str]:
    """Stage, step and seed of a small checkpoint."""
    with safe_open(path, "pt") as f:
        return dict(f.metadata() or {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, type=Path, help="checkpoint.pt of a run")
    parser.add_argument("--stage", required=True, help="name of the file: proposer, scenes, align, instruct")
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    metadata = write_small(options.run, options.out, options.stage)
    size = (options.out / f"{options.stage}.safetensors").stat().st_size
    print(f"{metadata}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
