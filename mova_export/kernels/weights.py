"""The file of packed weights: written tensor by tensor, each at a multiple of what the kernels need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mova_export.engines.store import Hashed
from mova_export.kernels.packing import Packing
from mova_runtime.bundle.kernels import PackedTensor
from mova_runtime.bundle.manifest import File

ALIGNMENT = 256
"""Bytes that every tensor's offset is a multiple of."""

_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


def layout(tensors: Sequence[Packing]) -> dict[str, PackedTensor]:
    """Where each tensor lies, in order."""
    placed, offset = {}, 0
    for tensor in tensors:
        placed[tensor.name] = PackedTensor(tensor.dtype, tensor.shape, offset)
        size = math.prod(tensor.shape) * _BYTES[tensor.dtype]
        offset += -(-size // ALIGNMENT) * ALIGNMENT
    return placed


def size_of(tensors: Sequence[Packing]) -> int:
    """Bytes of the file."""
    last = layout(tensors)[tensors[-1].name]
    return last.offset + math.prod(last.shape) * _BYTES[last.dtype]


def write(tensors: Sequence[Packing], path: Path, place: str) -> File:
    """Write the file at `path`; `place` is where it will lie in the bundle.

    Raises:
        ExportError: a tensor's type can't hold its values.
        OSError: the disk is full, or the file can't be written.
    """
    placed = layout(tensors)
    with Hashed(path) as file:
        for tensor in tensors:
            file.write(memoryview(bytes(placed[tensor.name].offset - file.size)))
            for values in tensor.values():
                file.write(values.reshape(-1).view(np.uint8).data)
    return File(place, file.size, file.sha256)
