"""Photos as the model sees them: squeezed to a square, and for training cropped, mirrored and recoloured.

Crops are cut from the photo's own pixels (small things gain resolution); boxes follow every step.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from groma_training import boxes
from groma_training.data.photo import Photo, PhotoStore

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Augment:
    """How strongly a training view differs from its photo; the defaults change nothing."""

    crop: float = 0.0  # how often a part is shown
    crop_side: tuple[float, float] = (0.4, 0.9)
    flip: float = 0.0
    colour: float = 0.0  # largest relative change of brightness, contrast and saturation
    grey: float = 0.0


@dataclass
class View:
    """``pixels`` u8 [3,S,S]; ``boxes`` centre form [N,4] with ``kept`` their places in ``photo.objects``; crowd regions
    are kept apart in ``crowds``, as are objects of which too little is seen: they are neither objects nor background."""

    photo: Photo
    pixels: Tensor
    boxes: Tensor
    kept: list[int]
    crowds: Tensor
    window: tuple[float, float, float, float] = WHOLE
    flipped: bool = False


def normalised(photo: Photo, rows: list[tuple[float, float, float, float]]) -> Tensor:
    """Pixel corners -> corners in 0..1 of the photo, [N,4]."""
    b = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    return (b / torch.tensor([photo.width, photo.height] * 2, dtype=torch.float32)).clamp(0, 1)


def square(image: Image.Image, side: int) -> Tensor:
    """Any photo -> u8 [3,S,S], the aspect ratio ignored (Pillow's bicubic, as the specification asks)."""
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def to_input(pixels: Tensor) -> Tensor:
    """u8 [..,3,S,S] -> the encoder's f32 input."""
    mean = torch.tensor(MEAN, device=pixels.device)[:, None, None]
    std = torch.tensor(STD, device=pixels.device)[:, None, None]
    return (pixels.float() / 255 - mean) / std


def seen_boxes(rows: Tensor, window: tuple[float, float, float, float], flipped: bool, keep: float = 0.4,
               ) -> tuple[Tensor, Tensor]:
    """Corners in the photo [N,4] -> centre form in the view [M,4], and which of them remain [N] bool (``boxes.crop``)."""
    inside, visible = boxes.crop(rows, window, keep)
    out = boxes.centres(inside)
    return boxes.flip(out) if flipped else out, visible


def view(photo: Photo, store: PhotoStore, side: int, augment: Augment = Augment(), rng: random.Random | None = None,
         smallest: float = 0.0) -> View:
    """Opens and transforms one photo; boxes narrower than ``smallest`` (of the view's side) are left out."""
    rng = rng or random.Random(0)
    image, window = store.open(photo), WHOLE
    if rng.random() < augment.crop:
        window = _window(augment.crop_side, rng)
        w, h = image.size
        image = image.crop((round(window[0] * w), round(window[1] * h), round(window[2] * w), round(window[3] * h)))
    flipped = rng.random() < augment.flip
    if flipped:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if augment.colour:
        for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = change(image).enhance(1 + rng.uniform(-augment.colour, augment.colour))
    if rng.random() < augment.grey:
        image = image.convert("L").convert("RGB")
    alone = [i for i, o in enumerate(photo.objects) if not o.iscrowd]
    whole = normalised(photo, [photo.objects[i].box for i in alone])
    rows, visible = seen_boxes(whole, window, flipped)
    wide = (rows[:, 2:] >= smallest).all(-1)
    kept = [i for i, seen in zip(alone, visible.tolist(), strict=True) if seen]
    unclear = torch.cat([normalised(photo, [o.box for o in photo.objects if o.iscrowd]), whole[~visible]])
    crowds, _ = seen_boxes(unclear, window, flipped, keep=0.0)
    return View(photo, square(image, side), rows[wide], [k for k, ok in zip(kept, wide.tolist(), strict=True) if ok],
                crowds, window, flipped)


def _window(sides: tuple[float, float], rng: random.Random) -> tuple[float, float, float, float]:
    side, stretch = rng.uniform(*sides), rng.uniform(0.85, 1.18)
    w, h = min(1.0, side * stretch), min(1.0, side / stretch)
    x, y = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
    return x, y, x + w, y + h
