"""What a meter can ask."""

from __future__ import annotations

from typing import Protocol


class Source(Protocol):
    """A device that tells something about its energy. Each call answers None where it does not tell that."""

    def joules(self) -> float | None:
        """A counter that only rises."""

    def watts(self) -> float | None:
        """What is drawn now."""

    def clocks(self) -> dict[str, float]:
        """Megahertz now, by what runs at it, such as "sm" and "memory"; empty where unknown."""
