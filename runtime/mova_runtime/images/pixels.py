"""The CLIP-style inputs: resize, centre crop, x/255, (x - mean)/std, as transformers' CLIPImageProcessor."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mova_runtime.bundle.manifest import PixelInput
from mova_runtime.errors import ImageError
from mova_runtime.images.frame import Frame
from mova_runtime.images.resize import Axis, resize

# A sliver of an image, its short side resized to `resize`, grows this long only to lose all but the middle.
_LONGEST = 1 << 22


def pixels(
    image: Image.Image | Frame, spec: PixelInput, aspect: Literal["pad", "crop"], pad_colour: tuple[int, int, int]
) -> NDArray[np.float32]:
    """[3, side, side] float32, channels RGB.

    image: mode RGB. aspect "pad": made square with `pad_colour` (8-bit RGB) and resized to `spec.resize`;
    "crop": its shorter side resized to that. The middle `spec.side` square is taken, black beyond the image.

    Raises:
        ImageError: aspect is "crop", and the longer side would be over 4 million pixels once resized.
    """
    short, long = min(image.size), max(image.size)
    if aspect == "crop" and spec.resize * long // short > _LONGEST:
        raise ImageError(f"image of {image.width} x {image.height} pixels: too narrow to crop; cut it first")

    def axis(size: int) -> Axis:
        if aspect == "pad":
            padded, resized = long, spec.resize
        else:
            # In transformers' order of float operations, so that it rounds to the same pixel.
            padded, resized = size, spec.resize if size == short else int(spec.resize * long / short)
        return Axis(size, padded, resized, min(spec.side, resized))

    across, down = axis(image.width), axis(image.height)
    middle = resize(image, across, down, Image.Resampling[spec.resample.upper()], pad_colour)
    return _place(_normalise(np.asarray(middle), spec), spec)


def _levels(spec: PixelInput) -> NDArray[np.float32]:
    """[3 channels, 256] float32: what each 8-bit level becomes."""
    level = (np.arange(256) / 255).astype(np.float32)
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    levels: NDArray[np.float32] = (level - mean[:, None]) / std[:, None]
    return levels


def _normalise(rgb: NDArray[np.uint8], spec: PixelInput) -> NDArray[np.float32]:
    """[height, width, 3] uint8 → [3, height, width] float32."""
    return np.stack([level[rgb[:, :, channel]] for channel, level in enumerate(_levels(spec))])


def _place(middle: NDArray[np.float32], spec: PixelInput) -> NDArray[np.float32]:
    """[3, height, width] → [3, side, side] on black, centred; the odd pixel of black goes above and left."""
    _, height, width = middle.shape
    if height == width == spec.side:
        return middle
    canvas = np.empty((3, spec.side, spec.side), np.float32)
    canvas[:] = _levels(spec)[:, :1, None]
    top, left = -((height - spec.side) // 2), -((width - spec.side) // 2)
    canvas[:, top : top + height, left : left + width] = middle
    return canvas
