"""Why a lease can't be had, with the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from mova_runtime.engines.memory import Limits, Memory
from mova_runtime.errors import MemoryBudgetError


class OutgrownError(MemoryBudgetError):
    """Of an engine that would fit if others were gone: its lease may wait for that. Told only within the pool."""


def never_fits(names: Sequence[str], takes: Memory, limits: Limits) -> MemoryBudgetError:
    """For what does not fit even alone."""
    who = f"engine {names[0]!r} needs" if len(names) == 1 else f"engines {', '.join(names)} need"
    return MemoryBudgetError(f"{who} {takes}; the budget is {limits}", alone=names)


def waited(
    seconds: float, names: Sequence[str], takes: Memory, limits: Limits, busy: tuple[Memory, Sequence[str]], ahead: int
) -> MemoryBudgetError:
    """For a wait that took too long; `ahead`: how many were to be served before."""
    who = repr(names[0]) if len(names) == 1 else ", ".join(names)
    before = f"; {ahead} waiting before it" if ahead else ""
    return MemoryBudgetError(f"waited {seconds:g} s for {who} ({takes}): the budget is {limits}{_leased(busy)}{before}")


def outgrown(
    name: str, takes: Memory, limits: Limits, busy: tuple[Memory, Sequence[str]], *, fits_alone: bool
) -> MemoryBudgetError:
    """For an engine that turned out larger than the room made for it."""
    kind = OutgrownError if fits_alone else MemoryBudgetError
    return kind(f"engine {name!r} turned out to need {takes}; the budget is {limits}{_leased(busy)}")


def _leased(busy: tuple[Memory, Sequence[str]]) -> str:
    memory, names = busy
    return f", of which {memory} is leased by {', '.join(names)}" if names else ""
