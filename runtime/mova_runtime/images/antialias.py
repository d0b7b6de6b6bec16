"""Antialiased bilinear resizing in numpy, with the rounding of torch's `interpolate(antialias=True)`.

Pillow's "F" mode computes the same formula in float64. torch places its taps in float32, so that across
hundreds of pixels the two drift apart, by up to 1e-4 of a normalised value.

Source: the triangle filter of torch's ATen/native/cpu/UpSampleKernel.cpp, made after Pillow's Resample.c.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mova_runtime.images.resize import Axis

# Values looked up and resized at a time, so that an image is never a float array as a whole.
_STRIP = 1 << 22


def resample(
    plane: NDArray[np.uint8], levels: NDArray[np.float32], across: Axis, down: Axis, colour: int
) -> NDArray[np.float32]:
    """One channel padded, looked up and resized: [down.resized, across.resized] float32.

    plane: [down.size, across.size] uint8, its pixels perhaps apart. levels: [256] float32, what each 8-bit level
    stands for. colour: the level of the padding.
    """
    border = float(levels[colour])
    narrowed = np.empty((across.resized, down.size), np.float32)
    rows = max(1, _STRIP // across.size)
    for top in range(0, down.size, rows):
        strip = slice(top, top + rows)
        # Looked up in C order, whatever order the plane is in: sums round by it.
        _along(levels[np.ascontiguousarray(plane[strip])], across, border, narrowed[:, strip])
    result = np.empty((down.resized, across.resized), np.float32)
    _along(narrowed, down, border, result)
    return result


def _along(values: NDArray[np.float32], axis: Axis, border: float, out: NDArray[np.float32]) -> None:
    """Resize each row of values [rows, axis.size] amid `border` to a column of out [axis.resized, rows]."""
    firsts, weights = _taps(axis.padded, axis.resized)
    starts = firsts - axis.before
    lefts = np.clip(starts, 0, axis.size)
    rights = np.clip(starts + weights.shape[1], 0, axis.size)
    for index, (start, left, right) in enumerate(np.stack([starts, lefts, rights], axis=1).tolist()):
        inside = weights[index, left - start : right - start]
        np.matmul(values[:, left:right], inside, out=out[index])
        if len(inside) < weights.shape[1]:
            out[index] += border * float(weights[index].sum() - inside.sum())


def _taps(size: int, resized: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """What each of `resized` pixels is made of: the first of `size` [resized], and the weights from there on.

    The weights are [resized, taps], zero where a pixel needs fewer than the others; each row's sum is 1.
    """
    single, double = np.float32, np.float64
    scale = single(size) / single(resized)
    support = max(scale, single(1))
    # What C++ promotes to double and rounds back to float is written so here.
    centres = (double(scale) * (np.arange(resized) + 0.5)).astype(single)
    firsts = np.maximum(((centres - support).astype(double) + 0.5).astype(np.int64), 0)
    stops = np.minimum(((centres + support).astype(double) + 0.5).astype(np.int64), size)
    taps = firsts[:, None] + np.arange((stops - firsts).max())
    distances = (taps.astype(single) - centres[:, None]).astype(double) + 0.5
    weights = np.maximum(1 - np.abs((distances * (single(1) / support)).astype(single)), single(0))
    weights[taps >= stops[:, None]] = 0
    return firsts, weights / weights.sum(axis=1, keepdims=True)
