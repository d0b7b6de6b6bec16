"""What an encoder made of one image, as it is kept: in memory of its own, with a size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np

from mova_runtime.engines.memory import Memory
from mova_runtime.engines.protocol import Array

FLOAT_BYTES = 4
"""Of what graphs exchange."""


@dataclass(frozen=True)
class ExpertFeature:
    """What an expert made of one image: features [n, Ce]; keys and values [blocks, L, C]; all float32.

    They are where the expert ran: on the host, or in a GPU's memory.
    """

    features: Array
    keys: Array
    values: Array


def own(batch: Array) -> list[Array]:
    """The entries of a batch's first axis, each in memory of its own, so that one can be kept without the others.

    On the host they are read-only: several requests may have the same one.
    """
    count = batch.shape[0]
    entries = [batch[i] if count == 1 else cast("Array", batch[i].copy()) for i in range(count)]  # type: ignore[union-attr]  # either kind copies itself
    for entry in entries:
        if isinstance(entry, np.ndarray):
            entry.flags.writeable = False
    return entries


def size_of(feature: Array | ExpertFeature) -> Memory:
    """The memory a feature takes."""
    if isinstance(feature, ExpertFeature):
        return size_of(feature.features) + size_of(feature.keys) + size_of(feature.values)
    size = FLOAT_BYTES * math.prod(feature.shape)
    return Memory(host=size) if isinstance(feature, np.ndarray) else Memory(device=size)
