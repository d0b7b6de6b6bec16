"""The tiles that an operator launches a kernel with: those of the GPU its tensors are on."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from mova_kernels.targets import TARGETS, Tile, Tiles

_EXACT = Tiles(Tile(64, 32, 64, 8, 2), Tile(64, 32, 64, 8, 2), Tile(64, 64, 32, 8, 2))
"""Of float32, which tensor cores don't multiply."""

_INTERPRETED = Tiles(Tile(64, 64, 64, 4, 1), Tile(64, 64, 64, 4, 1), Tile(64, 64, 64, 4, 1))


def tiles(tensor: Tensor) -> Tiles:
    """Those for this tensor's dtype on this tensor's device."""
    if not tensor.is_cuda:
        return _INTERPRETED
    return _EXACT if tensor.dtype == torch.float32 else _of_gpu(tensor.device)


@cache
def _of_gpu(device: torch.device) -> Tiles:
    """Of the newest target that the GPU is not older than, or of the oldest."""
    major, minor = torch.cuda.get_device_capability(device)
    oldest, *newer = sorted(TARGETS.values(), key=lambda target: target.arch)
    return [oldest, *(target for target in newer if target.arch <= 10 * major + minor)][-1].tiles
