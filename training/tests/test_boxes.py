"""Boxes under flips and crops, and the views that use them."""

import random
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from groma_training import boxes, preprocess
from groma_training.data.photo import Object, Photo, PhotoStore
from groma_training.detection_loss import assign, outside_crowds
from groma_training.model.select import nms, select
from groma_training.proposer import empty_regions
from groma_training.views import Augment, seen_boxes, view


def test_forms_are_inverse():
    b = torch.rand(20, 4) * 0.4 + 0.2
    assert torch.allclose(boxes.centres(boxes.corners(b)), b, atol=1e-6)


def test_a_part_lies_in_its_whole_whichever_comes_first():
    whole, half, beside = (torch.tensor([b]) for b in ([0.0, 0.0, 0.4, 0.4], [0.2, 0.0, 0.6, 0.2], [0.5, 0.5, 0.7, 0.7]))
    inside = torch.tensor([[0.1, 0.1, 0.2, 0.2]])
    assert torch.allclose(boxes.part_matrix(whole, torch.cat([inside, half, beside])), torch.tensor([[1.0, 0.5, 0.0]]))
    assert torch.allclose(boxes.part_matrix(torch.cat([inside, half]), whole), torch.tensor([[1.0], [0.5]]))


def test_flip_twice_is_nothing():
    b = torch.rand(20, 4)
    assert torch.allclose(boxes.flip(boxes.flip(b)), b)


def test_crop_keeps_the_visible_part():
    rows = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9], [0.0, 0.0, 1.0, 0.1]])
    seen, visible = boxes.crop(rows, (0.25, 0.25, 1.0, 1.0), keep=0.2)
    assert visible.tolist() == [True, True, False]
    assert torch.allclose(seen[0], torch.tensor([0, 0, 1 / 3, 1 / 3]), atol=1e-6)
    whole = seen * 0.75 + 0.25
    assert torch.allclose(whole[1], rows[1], atol=1e-6)


def test_what_fills_the_view_remains_and_what_is_cut_is_unclear():
    """A photo-filling object stays an object in every crop; a thing of which a corner is left is no background."""
    rows = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.6, 0.6], [0.9, 0.9, 1.0, 1.0]])
    _, visible = boxes.crop(rows, (0.5, 0.5, 0.9, 0.9))
    assert visible.tolist() == [True, False, False]
    photo = Photo("a", "", 100, 100, [Object((0, 0, 60, 60), "dog"), Object((90, 90, 100, 100), "cat")])
    store = SimpleNamespace(open=lambda _: Image.new("RGB", (100, 100)))
    seen = [view(photo, store, 64, Augment(crop=1, crop_side=(0.5, 0.5)), random.Random(seed)) for seed in range(40)]
    assert all(len(v.boxes) + len(v.crowds) <= 2 for v in seen)
    assert any(len(v.crowds) for v in seen)
    for v in (v for v in seen if len(v.crowds)):
        assert v.boxes.shape[0] == len(v.kept)
        regions = empty_regions(v.boxes, v.crowds, 20)
        assert (outside_crowds(regions, v.crowds) > 0).all()


def test_crop_and_flip_agree_with_pixels(tmp_path):
    """A white rectangle must be found where its box says, in every view."""
    pixels = np.zeros((120, 200, 3), np.uint8)
    pixels[40:80, 50:150] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    photo = Photo("a", str(tmp_path / "a.png"), 200, 120, [Object((50, 40, 150, 80), "box")])
    for seed in range(12):
        v = view(photo, PhotoStore(), 96, Augment(crop=1, crop_side=(0.7, 0.95), flip=0.5), random.Random(seed))
        if not len(v.boxes):
            continue
        x0, y0, x1, y1 = (boxes.corners(v.boxes)[0] * 96).tolist()
        rows, columns = (v.pixels[0] > 127).nonzero(as_tuple=True)
        found = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
        assert np.allclose(found, [x0, y0, x1, y1], atol=1.5), (seed, found)


def test_user_windows_leave_whole_photos_alone():
    rows = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    seen, visible = seen_boxes(rows, (0.0, 0.0, 1.0, 1.0), False)
    assert visible.all() and torch.allclose(boxes.corners(seen), rows, atol=1e-6)


def test_resize_keeps_constant_images_and_equal_sizes():
    flat = np.full((50, 70, 3), 137, np.uint8)
    assert (preprocess.resize(flat, 32) == 137).all()
    same = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert (preprocess.resize(same, 32) == same).all()


def test_nms_is_strict_and_stable():
    b = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0.5, 0.5]])
    assert nms(b, torch.tensor([0.5, 0.5, 0.4]), 0.6, 0.1, 10).tolist() == [0, 2]
    assert nms(b, torch.tensor([0.5, 0.5, 0.4]), 0.6, 0.4, 10).tolist() == [0]


def test_user_boxes_come_first_and_something_always_remains():
    b, scores = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]]), torch.tensor([0.01, 0.02])
    keep, _, match = select(b, scores, torch.tensor([[0.8, 0.8, 0.1, 0.1]]), nms_thres=0.6, score_thres=0.15, most=100)
    assert keep.tolist() == [2] and match.tolist() == [0]
    keep, _, _ = select(b, scores, torch.zeros(0, 4), nms_thres=0.6, score_thres=0.15, most=100)
    assert keep.tolist() == [1]


def test_only_places_in_a_box_serve_it():
    """A small box has few places inside: others, far away, must not be taught it."""
    centre = (torch.arange(8) + 0.5) / 8
    places = torch.stack([*torch.meshgrid(centre, centre, indexing="xy")], -1).reshape(-1, 2)
    places = torch.cat([places, torch.full((64, 2), 0.1)], 1)
    truth = torch.tensor([[0.19, 0.19, 0.15, 0.15], [0.7, 0.7, 0.5, 0.5]])
    query, which = assign(torch.zeros(64), places, truth, 8, places)
    away = (places[query, :2] - truth[which, :2]).abs()
    assert (away < truth[which, 2:] / 2).all()
    assert set(which.tolist()) == {0, 1} and int((which == 1).sum()) == 8
