"""Inputs as arrays of the host, for backends that compute there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mova_runtime.engines.protocol import Array, Inputs


def on_host(array: Array) -> np.ndarray:
    """The array itself, or its copy on the host."""
    return array if isinstance(array, np.ndarray) else array.numpy()


def arrays(inputs: Inputs) -> dict[str, np.ndarray]:
    """Every input as one array of the host."""
    return {
        name: np.stack([on_host(part) for part in value]) if isinstance(value, Sequence) else on_host(value)
        for name, value in inputs.items()
    }
