"""Pillow's 8-bit bicubic resize, bit for bit as Pillow 10 and the engine do it.

Training views use Pillow itself (newer versions may swap the two passes and differ by a few grey levels, which training
does not mind); evaluation and the golden tests use this one.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

PRECISION_BITS = 22
SUPPORT = 2.0  # of the bicubic kernel


def _kernel(x: float) -> float:
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


@lru_cache(maxsize=64)
def _taps(n_in: int, n_out: int) -> np.ndarray:
    """Integer taps as a dense f64 matrix [n_out,n_in]; f64 holds every product and sum exactly."""
    scale = n_in / n_out
    stretch = max(scale, 1.0)  # shrinking widens the kernel: that is the antialiasing
    out = np.zeros((n_out, n_in))
    for o in range(n_out):
        centre = (o + 0.5) * scale
        low = max(int(centre - SUPPORT * stretch + 0.5), 0)
        high = min(int(centre + SUPPORT * stretch + 0.5), n_in)
        weight = [_kernel((i - centre + 0.5) / stretch) for i in range(low, high)]
        total = sum(weight)
        for i, w in enumerate(weight):
            out[o, low + i] = int(w / total * (1 << PRECISION_BITS) + (0.5 if w / total >= 0 else -0.5))
    return out


def _columns(image: np.ndarray, size: int) -> np.ndarray:
    """u8 [H,W,3] -> u8 [H,size,3]; an axis of the right size is left alone."""
    if image.shape[1] == size:
        return image
    sums = np.einsum("ow,hwc->hoc", _taps(image.shape[1], size), image.astype(np.float64), optimize=True)
    return np.clip((sums.astype(np.int64) + (1 << (PRECISION_BITS - 1))) >> PRECISION_BITS, 0, 255).astype(np.uint8)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """u8 [H,W,3] -> u8 [size,size,3], the aspect ratio ignored; horizontal pass first."""
    image = _columns(image, size)
    return np.ascontiguousarray(_columns(image.transpose(1, 0, 2), size).transpose(1, 0, 2))
