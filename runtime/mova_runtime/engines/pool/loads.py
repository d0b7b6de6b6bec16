"""What the pool asks of who loads its engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from mova_runtime.engines.memory import Need
from mova_runtime.trace import Trace

if TYPE_CHECKING:
    from mova_runtime.engines.loader import Loaded


class Loads(Protocol):
    """Knows what engines need, and loads them. Several threads ask at once, for different components."""

    def need(self, component: str) -> Need:
        """What it took last time on this machine, else a guess.

        Raises:
            BundleError, BackendError: there is no such engine.
        """

    def seconds(self, component: str) -> float:
        """How long its load took last time, else a guess. Raises like `need`."""

    def is_known(self, component: str) -> bool:
        """Whether it was checked and measured on this machine, so that it may be loaded beside other work."""

    def load(self, component: str, trace: Trace, alone: Callable[[], int | None], *, final: bool) -> Loaded:
        """Load it; what a failed load took is given back.

        Args:
            component: its name.
            trace: gets the stages.
            alone: gives a number while nothing but this load is at work in the pools that share an `Activity`, else
                None. What was measured between two calls that gave the same number is the load's own.
            final: nothing more is going to be freed for it, so what takes less memory may be tried.

        Raises:
            BundleError, BackendError: it can't be loaded.
            OutOfMemoryError: there is not enough memory now.
        """
