"""What the arguments of launches are drawn with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from on_gpu.setting import Setting

BATCH = 2
PAIR_IMAGE, PAIR_EXPERT = (0, 1, 1), (1, 3, 6)
"""One image chose one expert and another two."""

Arguments = tuple[tuple[int, ...], dict[str, object]]
"""Programs along each axis of the grid, and a kernel's arguments by its names."""


class Drawing:
    """Tensors of an adapter's sizes and a type of activations."""

    def __init__(self, setting: Setting, dtype: torch.dtype) -> None:
        self.draw = setting.draw
        self.shape = setting.shape
        self.dtype = dtype
        self.device = setting.device

    def narrow(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Activations or a matrix."""
        return self.draw(*shape, dtype=self.dtype, scale=scale)

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """An output, full of NaN."""
        return torch.full(shape, math.nan, dtype=dtype or self.dtype, device=self.device)

    def integers(self, *numbers: int) -> Tensor:
        """An int32 table."""
        return torch.tensor(numbers, dtype=torch.int32, device=self.device)


def cdiv(a: int, b: int) -> int:
    return -(-a // b)
