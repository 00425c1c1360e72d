"""What stands between two weights."""

import pytest
import torch

from groma_training.blend import blend


def test_eyes_are_blended_and_nothing_else():
    zero, one = torch.zeros(2), torch.ones(2)
    old = {"perceiver.a": zero, "region_encoder.b": one, "llm.c": zero, "perceiver.gone": one}
    new = {"perceiver.a": one, "region_encoder.b": one, "llm.c": one, "perceiver.fresh": one}
    mixed = blend(old, new, 0.25)
    assert {k: v.tolist() for k, v in mixed.items()} == {"perceiver.a": [0.75, 0.75], "region_encoder.b": [1.0, 1.0]}


def test_what_does_not_fit_is_refused():
    a = {"perceiver.a": torch.zeros(2)}
    with pytest.raises(ValueError, match="between 0 and 1"):
        blend(a, a, 1.5)
    with pytest.raises(ValueError, match="in both"):
        blend(a, {"llm.c": torch.zeros(1)}, 0.5)
    with pytest.raises(ValueError, match=r"\(2,\) in one, \(3,\)"):
        blend(a, {"perceiver.a": torch.zeros(3)}, 0.5)
