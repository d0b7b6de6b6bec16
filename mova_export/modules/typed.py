"""A ModuleList that knows what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar, cast

from torch import nn

M = TypeVar("M", bound=nn.Module)


class ModuleListOf(nn.ModuleList, Generic[M]):
    """torch's ModuleList, with the type of its members."""

    def __getitem__(self, index: int) -> M:  # type: ignore[override]  # no slices
        """One member."""
        return cast(M, super().__getitem__(index))

    def __iter__(self) -> Iterator[M]:
        """Every member."""
        return cast(Iterator[M], super().__iter__())
