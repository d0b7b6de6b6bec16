"""The bundle's `.npy` files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mova_runtime.errors import IntegrityError


def load_array(path: Path, *, mapped: bool = False) -> np.ndarray:
    """A `.npy` file, never unpickled; read-only and mapped on request.

    Raises:
        IntegrityError: it is not a plain array.
    """
    try:
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise IntegrityError(f"{path}: not an array ({error})") from None
    return array
