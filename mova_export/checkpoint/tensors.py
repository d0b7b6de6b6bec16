"""What a model's weights are asked for, wherever they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

from torch import Tensor


class Tensors(Mapping[str, tuple[int, ...]], ABC):
    """Maps every tensor's published name to its shape, and gives one when asked."""

    @abstractmethod
    def tensor(self, name: str) -> Tensor:
        """A tensor in float32 on the CPU; nobody else holds its memory."""


class HeldTensors(Tensors):
    """Tensors that are in memory: a module's."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """`state`: float32, on the CPU."""
        self._state = state

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return tuple(self._state[name].shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def tensor(self, name: str) -> Tensor:
        """A copy of a tensor."""
        return self._state[name].detach().clone()
