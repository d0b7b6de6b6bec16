"""What a model's weights are asked for, wherever they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor


class Tensors(Mapping[str, tuple[int, ...]], ABC):
    """Maps every tensor's published name to its shape, and gives one when asked."""

    @abstractmethod
    def tensor(self, name: str) -> Tensor:
        """A tensor in float32 on the CPU; nobody else holds its memory."""
