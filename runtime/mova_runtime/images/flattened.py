"""Pix2Struct's input: as many square patches as fit `max_patches`, as transformers' Pix2StructImageProcessor.

The processor normalises an image by its own mean and deviation, then resizes. Both statistics follow from the
histogram, where the square's padding is so many more pixels of one colour: the square itself is never made.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mova_runtime.bundle.manifest import PatchInput
from mova_runtime.images.antialias import resample
from mova_runtime.images.frame import Frame
from mova_runtime.images.resize import Axis


def flattened(
    image: Image.Image | Frame, spec: PatchInput, aspect: Literal["pad", "crop"], pad_colour: tuple[int, int, int]
) -> NDArray[np.float32]:
    """[max_patches, 2 + patch·patch·3] float32; unused rows at the end are zero.

    Columns 0 and 1 are a patch's row and column, from 1; the rest its pixels [row, column, RGB], normalised.

    image: mode RGB. aspect "pad": first made square with `pad_colour` (8-bit RGB); "crop": its shape is kept.
    """
    width, height = image.size if aspect == "crop" else (max(image.size),) * 2
    rows, columns = grid(height, width, spec)
    across = Axis(image.width, width, columns * spec.patch, columns * spec.patch)
    down = Axis(image.height, height, rows * spec.patch, rows * spec.patch)
    levels = _levels(image, width * height - image.width * image.height, pad_colour)

    patches = np.empty((rows, columns, spec.patch, spec.patch, 3), np.float32)
    for channel, colour in enumerate(pad_colour):
        plane = resample(_plane(image, channel), levels, across, down, colour)
        patches[..., channel] = plane.reshape(rows, spec.patch, columns, spec.patch).transpose(0, 2, 1, 3)

    result = np.zeros((spec.max_patches, 2 + patches[0, 0].size), np.float32)
    used = result[: rows * columns]
    used[:, 0] = np.repeat(np.arange(1, rows + 1), columns)
    used[:, 1] = np.tile(np.arange(1, columns + 1), rows)
    used[:, 2:] = patches.reshape(rows * columns, -1)
    return result


def grid(height: int, width: int, spec: PatchInput) -> tuple[int, int]:
    """Rows and columns of patches for that many pixels: the aspect is kept, there are at most max_patches.

    The float operations keep transformers' order: floor turns a difference in the last bit into a whole row.
    """
    patch = spec.patch
    scale = math.sqrt(spec.max_patches * (patch / height) * (patch / width))
    rows = max(min(math.floor(scale * height / patch), spec.max_patches), 1)
    columns = max(min(math.floor(scale * width / patch), spec.max_patches), 1)
    return rows, columns


def _plane(image: Image.Image | Frame, channel: int) -> NDArray[np.uint8]:
    return image.plane(channel) if isinstance(image, Frame) else np.asarray(image.getchannel(channel))


def _levels(image: Image.Image | Frame, padding: int, pad_colour: tuple[int, int, int]) -> NDArray[np.float32]:
    """[256] float32: each 8-bit level minus the mean, over the deviation, of all values of all channels.

    padding: how many pixels of `pad_colour` to count besides the image's own. As in TensorFlow's
    per_image_standardization the deviation is at least 1/sqrt(number of values).
    """
    counts = np.array(image.histogram(), np.int64).reshape(3, 256).sum(axis=0)
    for colour in pad_colour:
        counts[colour] += padding
    total = int(counts.sum())
    centred = np.arange(256) - int(counts @ np.arange(256)) / total
    deviation = math.sqrt(float(counts @ centred**2) / total)
    levels: NDArray[np.float32] = (centred / max(deviation, 1 / math.sqrt(total))).astype(np.float32)
    return levels
