"""Pad, resize and crop as Pillow does, bit for bit, in strips: the padded square never exists.

`Image.resize` first makes every row as wide as the result, rounds, then does the same to the columns. Rows
don't see each other in the first pass, nor columns in the second, so either can be done some at a time, and
padding and cropping along its axis need no more room than that. A panorama of 20,000 x 100 pixels costs
megabytes, where its padded square would take 1.6 GB.

From Pillow 13 on, `Image.resize` takes the columns first where the height shrinks much more than the width.
Here rows always come first, as in the Pillow that checkpoints were trained with.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from mova_runtime.images.frame import Frame

# Pixels of a strip, 4 bytes each: small enough for a cache, large enough that Python's share doesn't show.
_STRIP = 1 << 20


@dataclass(frozen=True)
class Axis:
    """One axis: `size` pixels amid `padded`, resized to `resized`, of which the middle `kept` stay.

    Where the middle can't be exact, one pixel less lies in front than behind.
    """

    size: int
    padded: int
    resized: int
    kept: int

    @property
    def before(self) -> int:
        """Padding in front of the pixels."""
        return (self.padded - self.size) // 2

    @property
    def start(self) -> int:
        """First of the resized pixels that stays."""
        return (self.resized - self.kept) // 2


def resize(
    image: Image.Image | Frame, across: Axis, down: Axis, resample: Image.Resampling, colour: tuple[int, int, int]
) -> Image.Image:
    """The image padded with `colour`, resized and cropped to across.kept x down.kept pixels.

    image: mode RGB, across.size x down.size pixels. colour: 8-bit RGB.
    """
    rows = _widths(image, across, resample, colour)
    # Pillow computes both passes alike, so the second is the first on the transposed image.
    columns = _widths(rows.transpose(Image.Transpose.TRANSPOSE), down, resample, colour)
    return columns.transpose(Image.Transpose.TRANSPOSE)


def _widths(
    image: Image.Image | Frame, axis: Axis, resample: Image.Resampling, colour: tuple[int, int, int]
) -> Image.Image:
    """The horizontal pass: an image axis.size wide becomes axis.kept wide, its height stays."""
    result = Image.new(image.mode, (axis.kept, image.height))
    rows = max(1, _STRIP // max(axis.padded, axis.resized))
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        strip = image.crop((0, top, image.width, bottom))
        if axis.padded != axis.size:
            padded = Image.new(image.mode, (axis.padded, bottom - top), colour)
            padded.paste(strip, (axis.before, 0))
            strip = padded
        strip = strip.resize((axis.resized, bottom - top), resample)
        if axis.kept != axis.resized:
            strip = strip.crop((axis.start, 0, axis.start + axis.kept, bottom - top))
        result.paste(strip, (0, top))
    return result
