"""A caller's image as a frame over the same memory: nothing is copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mova_runtime.images import Frame

_FORMS = {1: "RGB8", 2: "BGR8", 3: "RGBA8", 4: "GRAY8"}
"""By `mova_format`."""


def frame(ffi: Any, image: Any) -> Frame:
    """The pixels of a `mova_image` that the C side has checked, its stride told.

    What this returns is only good while the call runs that was given the image.
    """
    import numpy as np  # noqa: PLC0415  # slow to import

    from mova_runtime.images import Frame  # noqa: PLC0415  # imports numpy
    from mova_runtime.images.frame import WIDTHS  # noqa: PLC0415

    form = _FORMS[image.format]
    pixel, height, width, stride = WIDTHS[form], image.height, image.width, image.stride
    before = -stride * (height - 1) if stride < 0 else 0  # rows go up: the last one is the first in memory
    size = abs(stride) * (height - 1) + width * pixel
    memory = ffi.buffer(ffi.cast("char *", image.data) - before, size)
    pixels = np.ndarray((height, width, pixel), np.uint8, memory, before, (stride, pixel, 1))
    pixels.flags.writeable = False
    return Frame(pixels, form)
