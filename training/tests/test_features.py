"""The cache of states grows, is resumed, and refuses another encoder's."""

import pytest
import torch
from PIL import Image

from groma_training.data.photo import Photo, PhotoStore
from groma_training.features import FeatureCache, build
from groma_training.model.encoder import Encoder
from groma_training.views import square, to_input


def test_cache_is_resumed_and_read(toy_config, tmp_path):
    encoder = Encoder(toy_config.vision).eval()
    photos = []
    for key in "ab":
        Image.effect_noise((80, 60), 80).convert("RGB").save(tmp_path / f"{key}.png")
        photos.append(Photo(key, str(tmp_path / f"{key}.png"), 80, 60))
    count = {"passes": 0}
    encoder.register_forward_pre_hook(lambda *_: count.__setitem__("passes", count["passes"] + 1))
    folder = tmp_path / "cache"
    assert build(encoder, photos, toy_config, folder, stamp="step 1") == 2
    assert build(encoder, photos, toy_config, folder, stamp="step 1") == 2
    assert count["passes"] == 2, "photos already there are not computed again"
    cache = FeatureCache(folder)
    with torch.no_grad():
        want = encoder(to_input(square(PhotoStore().open(photos[1]), 64))[None])[-4:]
    assert "b" in cache and torch.allclose(cache["b"], torch.cat(want), atol=5e-3)
    with pytest.raises(ValueError, match="not of step 2"):
        build(encoder, photos, toy_config, folder, stamp="step 2")
