"""What a command did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ran:
    """Its exit status, and what it printed."""

    status: int
    out: str
    err: str


Mova = Callable[..., Ran]
