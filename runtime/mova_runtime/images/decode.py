"""Whatever a caller has, as an 8-bit RGB image; whatever can't become one, as an `ImageError` of one line.

Two choices differ from the training code, which reads with `Image.open(file).convert("RGB")`:
- EXIF orientation is applied. Training ignored it and saw such photos lying on their side; a user means the
  picture that every viewer shows.
- 16-bit greyscale is scaled to 8 bits. `convert` clips it instead: all but the darkest 1/256 turns white.
As in training, alpha is dropped rather than blended: a transparent pixel shows the colour stored under it.
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mova_runtime.errors import ImageError
from mova_runtime.images.frame import Frame

ImageSource: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8] | Frame

# `catch_warnings` swaps a list of the whole process; without the lock two threads could restore each other's.
_warnings = threading.Lock()

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(image: ImageSource) -> Image.Image | Frame:
    """An image of its own (mode RGB, upright), sharing nothing with the source; a frame as it is.

    image: a file's path, a file's bytes, a PIL image, or a uint8 array [height, width] or [height, width,
        channels] with 1 (grey), 3 (RGB) or 4 (RGBA) channels. Of an animation the first frame counts, of a
        PIL image the current one. Or a `Frame`, which is read where it lies.

    Raises:
        ImageError: nothing there, not an image, truncated, empty, more pixels than Pillow allows, 32-bit or
            floating-point pixels, or an array of another dtype or shape.
    """
    if isinstance(image, Frame):
        return image
    if isinstance(image, Image.Image):
        return _rgb(image, "PIL image")
    if isinstance(image, np.ndarray):
        return _rgb(_from_array(image), "image array")
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _from_file(io.BytesIO(image), "image bytes")
    if isinstance(image, (str, os.PathLike)):
        name = str(image)
        name = name if name and name.isprintable() else repr(name)
        try:
            with Path(image).open("rb") as file:
                return _from_file(file, name)
        except (OSError, ValueError) as error:
            raise ImageError(f"{name}: can't be opened ({_reason(error)})") from None
    raise ImageError(f"image of type {type(image).__name__}: give a path, bytes, PIL image or uint8 array")


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(f"image array: dtype {array.dtype}; give uint8 in 0..255")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise ImageError(f"image array: shape {list(array.shape)}; give [height, width, 1, 3 or 4 channels]")
    return Image.fromarray(np.ascontiguousarray(array))


def _from_file(file: IO[bytes], name: str) -> Image.Image:
    if not file.read(1):
        raise ImageError(f"{name}: empty, not an image")
    file.seek(0)
    try:
        with _warnings, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(file)
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image, or of a format Pillow can't read") from None
    except Exception as error:  # a broken header makes Pillow's plugins raise anything
        raise _undecodable(name, error) from error
    with opened:
        return _rgb(opened, name)


def _rgb(image: Image.Image, name: str) -> Image.Image:
    """A copy in mode RGB, upright."""
    try:
        if not image.width or not image.height:
            raise ImageError(f"{name}: {image.width} x {image.height} pixels")
        image.load()
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
        if image.mode == "I" or image.mode.startswith("I;16"):
            image = _eight_bits(image, name)
        elif image.mode == "F":
            raise ImageError(f"{name}: floating-point pixels of unknown range; scale them to 8 bits first")
        elif isinstance(image.info.get("transparency"), bytes):
            image = image.convert("RGBA")  # straight to RGB gives the same colours and a warning
        image = image.convert("RGB")
        return image.transpose(turn) if turn is not None else image
    except ImageError:
        raise
    except Exception as error:  # and so do broken pixels
        raise _undecodable(name, error) from error


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """16-bit greyscale, which some Pillow versions hand out as 32-bit, to mode L: round(value / 257)."""
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(f"{name}: 32-bit pixels from {low} to {high}; scale them to 8 bits first")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _undecodable(name: str, error: Exception) -> ImageError:
    if isinstance(error, Image.DecompressionBombError):
        return ImageError(f"{name}: too large ({_reason(error)}); scale it down first")
    return ImageError(f"{name}: can't be decoded ({_reason(error)})")


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
