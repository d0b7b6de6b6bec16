"""Antialiased bilinear resizing in numpy, with the rounding of torch's `interpolate(antialias=True)`.

Pillow's "F" mode computes the same formula in float64. torch places its taps in float32, so that across
hundreds of pixels the two drift apart, by up to 1e-4 of a normalised value.

Source: the triangle filter of torch's ATen/native/cpu/UpSampleKernel.cpp, made after Pillow's Resample.c.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mova_runtime.images.resize import Axis

# Values looked up and resized at a time, so that an image is never a float array as a whole.
_STRIP = 1 << 20


def resample(
    plane: NDArray[np.uint8], levels: NDArray[np.float32], across: Axis, down: Axis, colour: int
) -> NDArray[np.float32]:
    """One channel padded, looked up and resized: [down.resized, across.resized] float32.

    plane: [down.size, across.size] uint8. levels: [256] float32, what each 8-bit level
    stands for. colour: the level of the padding.
    """
    border = float(levels[colour])
    narrowed = np.empty((across.resized, down.size), np.float32)
    rows = max(1, _STRIP // across.size)
    for top in range(0, down.size, rows):
        strip = slice(top, top + rows)
        _along(levels[plane[strip]], across, border, narrowed[:, strip])
    result = np.empty((down.resized, across.resized), np.float32)
    _along(narrowed, down, border, result)
    return result


def _along(values: NDArray[np.float32], axis: Axis, border: float, out: NDArray[np.float32]) -> None:
    """Resize each row of values [rows, axis.size] amid `border` to a column of out [axis.resized, rows]."""
    for index, (first, weights) in enumerate(_taps(axis.padded, axis.resized)):
        start, stop = first - axis.before, first - axis.before + len(weights)
        left, right = min(max(start, 0), axis.size), min(max(stop, 0), axis.size)
        inside = weights[left - start : right - start]
        out[index] = values[:, left:right] @ inside + border * float(weights.sum() - inside.sum())


def _taps(size: int, resized: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """For each of `resized` pixels: the first of the `size` it is made of, and weights from there on; sum 1."""
    single, double = np.float32, np.float64
    scale = single(size) / single(resized)
    support = max(scale, single(1))
    # What C++ promotes to double and rounds back to float is written so here.
    centres = (double(scale) * (np.arange(resized) + 0.5)).astype(single)
    firsts = np.maximum(((centres - support).astype(double) + 0.5).astype(np.int64), 0)
    stops = np.minimum(((centres + support).astype(double) + 0.5).astype(np.int64), size)
    for first, stop, centre in zip(firsts.tolist(), stops.tolist(), centres, strict=True):
        distance = (np.arange(first, stop, dtype=single) - centre).astype(double) + 0.5
        weights = np.maximum(1 - np.abs((distance * (single(1) / support)).astype(single)), single(0))
        yield first, weights / weights.sum()
