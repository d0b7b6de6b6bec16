"""Who goes when room is needed: what is cheapest to get back per byte, and was used longest ago.

GreedyDual-Size: Cao, Irani, "Cost-Aware WWW Proxy Caching Algorithms", USITS 1997. What is used gets the priority
L + seconds / bytes, where L is the priority of what was evicted last; the lowest goes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from mova_runtime.engines.memory import Limits, Memory
from mova_runtime.engines.pool.holding import Evictable

T = TypeVar("T", bound=Evictable)


class GreedyDual:
    """Gives out priorities."""

    def __init__(self) -> None:
        self._floor = 0.0
        self._turn = 0

    def touch(self, thing: Evictable, size: Memory) -> None:
        """It was used, or came. `size`: what evicting it would give."""
        self._turn += 1
        thing.turn = self._turn
        thing.priority = self._floor + thing.seconds / max(1, size.total)

    def evicted(self, things: Iterable[Evictable]) -> None:
        """These went."""
        self._floor = max([self._floor, *(thing.priority for thing in things)])


def choose(candidates: Sequence[T], used: Memory, limits: Limits) -> tuple[list[T], Memory]:
    """Those of the candidates that must go so that the limits hold, and what is used without them.

    Args:
        candidates: that may go, the first first.
        used: with all of them.
        limits: if they can't be held, all go that bring them nearer.

    Returns:
        No more than must: without any one of them there would be less room.
    """
    chosen: list[T] = []
    for candidate in candidates:
        if limits.hold(used):
            break
        chosen.append(candidate)
        used -= candidate.charge
    for candidate in reversed(chosen.copy()):  # a late large one may make early small ones needless
        if limits.excess(used + candidate.charge) == limits.excess(used):
            chosen.remove(candidate)
            used += candidate.charge
    return chosen, used
