"""Engines are loaded before they are needed: beside the router's decoding, and beside the engines that come first."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from mova_runtime.trace import Trace

if TYPE_CHECKING:
    from mova_runtime.engines.pool import EnginePool

THREAD = "mova-prefetch"
"""Its name in a trace."""


class Prefetcher:
    """One thread of a runtime that loads what requests announce, in the order in which they do.

    One is enough: loads take turns at the disk anyway, and what was announced first is needed first.
    """

    def __init__(self, pool: EnginePool, *, active: bool = True) -> None:
        """`active`: without it nothing is loaded ahead; what is announced is kept from eviction all the same."""
        self._pool = pool
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=THREAD) if active else None

    def load(
        self, component: str, trace: Trace, *, evict: bool = True, before: Sequence[str] = ()
    ) -> Future[bool] | None:
        """Queue the load of a component that is not loaded; None where there is nothing to do. See `prefetch`."""
        if component in self._pool.loaded:
            return None
        with self._lock, contextlib.suppress(RuntimeError):  # Python is shutting down
            if self._worker:
                return self._worker.submit(self._pool.prefetch, component, trace, evict=evict, before=before)
        return None

    def close(self) -> None:
        """Give up what is queued; wait for the load that has begun."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker:
            worker.shutdown(wait=True, cancel_futures=True)


class Plan:
    """What one request is still going to need: wanted in the pool until it was used, loaded ahead if there is room."""

    def __init__(self, pool: EnginePool, prefetcher: Prefetcher, trace: Trace) -> None:
        self._pool = pool
        self._prefetcher = prefetcher
        self._trace = trace
        self._queued: dict[str, Future[bool] | None] = {}
        self._guessed: list[Future[bool] | None] = []

    def add(self, *components: str) -> None:
        """Announce components, the next needed first; again is no harm."""
        new = [component for component in components if component not in self._queued]
        if new:
            self._drop_guesses()
        self._pool.want(new)
        for component in new:
            before = tuple(self._queued)
            self._queued[component] = None  # wanted from now on, whatever queueing it comes to
            self._queued[component] = self._prefetcher.load(component, self._trace, before=before)

    def guess(self, components: Iterable[str]) -> None:
        """Load components that are only likely to be needed, into free room, until something is announced for certain.

        This is not the request's time: its trace does not tell of it, the runtime's does.
        """
        beside = self._trace.beside()
        self._guessed = [self._prefetcher.load(component, beside, evict=False) for component in components]

    def due(self, component: str) -> None:
        """It is needed now: a load that has not begun is given up, the lease does it."""
        if queued := self._queued.get(component):
            queued.cancel()

    def done(self, components: Iterable[str]) -> None:
        """These are not needed any more."""
        for component in components:
            if component in self._queued:
                if queued := self._queued.pop(component):
                    queued.cancel()
                self._pool.unwant((component,))

    def end(self) -> None:
        """Nothing is needed any more, however the request ended."""
        self._drop_guesses()
        self.done(tuple(self._queued))

    def _drop_guesses(self) -> None:
        for queued in self._guessed:
            if queued:
                queued.cancel()
        self._guessed = []
