"""An image's four inputs, each made when it is first asked for: most questions need only some."""

from __future__ import annotations

import hashlib
import threading
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mova_runtime.bundle.manifest import ImageInput, Preprocessing
from mova_runtime.images.decode import ImageSource, decode
from mova_runtime.images.flattened import flattened
from mova_runtime.images.frame import Frame
from mova_runtime.images.pixels import pixels

_NAMES: tuple[ImageInput, ...] = ("clip", "dinov2", "high", "flattened")


class Inputs:
    """The inputs of one decoded image by name; what was made once is kept."""

    def __init__(self, image: Image.Image | Frame, preprocessing: Preprocessing) -> None:
        self._image = image
        self._preprocessing = preprocessing
        self._made: dict[ImageInput, NDArray[np.float32]] = {}
        self._making = threading.Lock()

    @property
    def image(self) -> Image.Image:
        """A copy of it as it was decoded: RGB, upright."""
        return self._image.image() if isinstance(self._image, Frame) else self._image.copy()

    @cached_property
    def digest(self) -> str:
        """A hash of the image's pixels: the same picture from another file, or as an array, has the same."""
        hashed = hashlib.blake2b(str(self._image.size).encode(), digest_size=16)
        for rows in self._image.strips() if isinstance(self._image, Frame) else (np.asarray(self._image),):
            hashed.update(rows.data)
        return hashed.hexdigest()

    def __getitem__(self, name: ImageInput) -> NDArray[np.float32]:
        """One input, float32 without a batch axis.

        "clip", "dinov2", "high": [3, side, side]; "flattened": [max_patches, 2 + 3·patch²].

        Raises:
            ImageError: the image is too narrow to be cropped (see pixels.py).
        """
        with self._making:  # experts that see the same input may ask at the same time
            if name not in self._made:
                self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: ImageInput) -> NDArray[np.float32]:
        recipe = self._preprocessing
        colour = recipe.pad_colour[name]
        if name == "flattened":
            return flattened(self._image, recipe.flattened, recipe.aspect, colour)
        spec = {"clip": recipe.clip, "dinov2": recipe.dinov2, "high": recipe.high}[name]
        return pixels(self._image, spec, recipe.aspect, colour)


class Preprocessor:
    """Turns images into what a bundle's graphs take, as its manifest says."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing

    def decode(self, image: ImageSource) -> Inputs:
        """Read the image now, make its inputs later.

        Raises:
            ImageError: it can't be read as one (see decode.py).
        """
        return Inputs(decode(image), self._preprocessing)

    def __call__(self, image: ImageSource) -> dict[ImageInput, NDArray[np.float32]]:
        """All four inputs, float32 without a batch axis (shapes: see `Inputs`).

        Raises:
            ImageError: it can't be read as one, or is too narrow to be cropped.
        """
        inputs = self.decode(image)
        return {name: inputs[name] for name in _NAMES}
