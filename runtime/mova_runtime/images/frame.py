"""Pixels read where a caller has them: a camera's frame that is never copied as a whole.

`decode` gives every image memory of its own, and Pillow keeps 4 bytes a pixel. Preprocessing needs neither: it reads
rows in strips, channels one at a time, and a histogram. A frame offers these and copies a strip at most.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mova_runtime.errors import ImageError

CHANNELS = {"RGB8": (0, 1, 2), "BGR8": (2, 1, 0), "RGBA8": (0, 1, 2), "GRAY8": (0, 0, 0)}
"""By format: where in a pixel red, green and blue are. Alpha is dropped, as `decode` does."""

WIDTHS = {"RGB8": 3, "BGR8": 3, "RGBA8": 4, "GRAY8": 1}
"""By format: bytes of a pixel."""

# Bytes of a strip: what is copied at a time.
_STRIP = 1 << 20


class Frame:
    """An image in memory that is not ours. It must stay, unchanged, until the call that was given it has returned.

    It has the part of Pillow's interface that preprocessing uses, with Pillow's results.
    """

    mode = "RGB"

    def __init__(self, pixels: NDArray[np.uint8], form: str = "RGB8") -> None:
        """Look at the array, and copy nothing.

        Args:
            pixels: [height, width, bytes of a pixel] uint8; the rows, and nothing else, may lie apart.
            form: "RGB8", "BGR8", "RGBA8" or "GRAY8".

        Raises:
            ImageError: the format is unknown, or the array is not of it, or empty.
        """
        if form not in CHANNELS:
            raise ImageError(f"frame of format {form!r}; there are {', '.join(CHANNELS)}")
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != WIDTHS[form] or 0 in pixels.shape:
            raise ImageError(
                f"frame of {pixels.dtype} {list(pixels.shape)}; {form} is uint8 [height, width, {WIDTHS[form]}]"
            )
        self._pixels = pixels
        self._channels = CHANNELS[form]
        self._is_rgb = form == "RGB8"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    @property
    def width(self) -> int:
        """Pixels of a row."""
        return int(self._pixels.shape[1])

    @property
    def height(self) -> int:
        """Rows."""
        return int(self._pixels.shape[0])

    def crop(self, box: tuple[int, int, int, int]) -> Image.Image:
        """A copy of the pixels from (left, upper) to before (right, lower), mode RGB; the box lies within the frame."""
        left, upper, right, lower = box
        return Image.fromarray(self._rgb(self._pixels[upper:lower, left:right]))

    def plane(self, channel: int) -> NDArray[np.uint8]:
        """One of red, green and blue [height, width], where it lies."""
        return self._pixels[:, :, self._channels[channel]]

    def strips(self) -> Iterator[NDArray[np.uint8]]:
        """All rows from above, some at a time: [rows, width, 3] RGB in C order."""
        rows = max(1, _STRIP // (3 * self.width))
        for top in range(0, self.height, rows):
            yield self._rgb(self._pixels[top : top + rows])

    def histogram(self) -> list[int]:
        """How many pixels have each level: 256 counts of red, then of green, then of blue."""
        counts = np.zeros(3 * 256, np.int64)
        for strip in self.strips():
            counts += Image.fromarray(strip).histogram()
        return [int(count) for count in counts]

    def image(self) -> Image.Image:
        """A copy as a PIL image, mode RGB."""
        return self.crop((0, 0, self.width, self.height))

    def _rgb(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Some of the pixels as RGB in C order: themselves where they are so already."""
        return np.ascontiguousarray(pixels if self._is_rgb else pixels[:, :, list(self._channels)])
