"""Configurations parse, and every key is known."""

import tomllib
from pathlib import Path

import pytest

from groma_training.config import GromaConfig
from groma_training.settings import load_settings

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@pytest.mark.parametrize(("name", "stages"), [("groma-s", ("proposer", "scenes", "align", "instruct")),
                                              ("groma-s-gpu", ("proposer", "scenes", "align", "instruct")),
                                              ("groma-7b", ("proposer", "align", "instruct"))])
def test_every_stage_is_complete(name, stages):
    written = tomllib.loads((CONFIGS / f"{name}.toml").read_text())
    for stage in stages:
        s = load_settings(CONFIGS / f"{name}.toml", stage)
        assert {"steps", "epochs"} & set(written[stage]), "how long it runs"
        assert stage in ("proposer", "scenes") or any("stage1" in path for path in s.start), "where its proposer is from"
        assert s.photos and GromaConfig.load(s.model).proposer.two_stage


def test_the_papers_numbers():
    stages = [load_settings(CONFIGS / "groma-7b.toml", s) for s in ("proposer", "align", "instruct")]
    assert [s.epochs for s in stages] == [12, 2, 1]
    assert [s.lr for s in stages] == [2e-4, 1e-4, 1e-5]
    assert [s.global_batch for s in stages] == [64, 128, 128]


def test_overrides_and_unknown_keys():
    s = load_settings(CONFIGS / "groma-s.toml", "proposer", ["steps=7", "start=[\"x\"]"])
    assert s.steps == 7 and s.start[0].endswith("x")
    with pytest.raises(ValueError, match="unknown settings"):
        load_settings(CONFIGS / "groma-s.toml", "proposer", ["stepz=7"])
    with pytest.raises(ValueError, match="taught_by"):
        load_settings(CONFIGS / "groma-s.toml", "align", ["taught_by=region"])
