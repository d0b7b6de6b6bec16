"""Inputs made of noise, to trace graphs with and to compare them on."""

from __future__ import annotations

import torch
from torch import Tensor

SEED = 20240422


def random(*shape: int) -> Tensor:
    """Standard normal numbers, the same for the same shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(SEED))
