"""What a command did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Done:
    """Its exit status, and both of its streams."""

    status: int
    output: str
    error: str

    @property
    def error_lines(self) -> list[str]:
        """Standard error, line by line."""
        return self.error.splitlines()


MovaCommand = Callable[..., Done]
