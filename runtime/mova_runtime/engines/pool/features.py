"""Features of images and texts, kept in the same room as the engines that compute them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from mova_runtime.engines.memory import Memory
from mova_runtime.engines.pool.holding import Feature
from mova_runtime.engines.pool.pool import EnginePool
from mova_runtime.engines.pool.shelf import Shelf
from mova_runtime.trace import Trace


class FeatureCache:
    """Any number of threads may use it. A pool has one at most."""

    def __init__(self, pool: EnginePool, bound: int) -> None:
        """`bound`: bytes of all features, the host's and the GPU's together; 0 keeps nothing."""
        self._shared = pool.shared
        self._shelf = Shelf(pool.shared.room, bound)
        self._hits = self._misses = 0

    @property
    def bytes(self) -> int:
        """Of what is kept now."""
        with self._shared.changed:
            return self._shared.room.ledger.features_size

    @property
    def hits(self) -> int:
        """How often `get` found something."""
        return self._hits

    @property
    def misses(self) -> int:
        """How often it did not."""
        return self._misses

    def get(self, key: Hashable) -> Any | None:
        """What was put under a key, if it is still there."""
        with self._shared.changed:
            found = self._shelf.find(key)
            if found:
                self._hits += 1
            else:
                self._misses += 1
            return found.value if found else None

    def has(self, key: Hashable) -> bool:
        """Whether `get` would find something; it counts as no use."""
        with self._shared.changed:
            return key in self._shared.room.ledger.features

    def put(
        self,
        key: Hashable,
        value: object,
        size: Memory,
        seconds: float,
        *,
        name: str = "feature",
        trace: Trace | None = None,
    ) -> None:
        """Keep a value if there is room. For it go the least recently used, and what is cheaper to get back per byte.

        Args:
            key: of it; what was under it goes.
            value: not None.
            size: the memory it takes.
            seconds: it took to compute.
            name: what a trace calls it when it goes, as in "cache drop sam".
            trace: of the request, for what goes now.
        """
        feature = Feature(size, seconds, key, value, name)
        with self._shared.changed:
            if self._shared.closed:
                return
            leaving = self._shelf.keep(feature, evict=not self._shared.line)  # who waits may need what would go
        self._shared.finish(trace, leaving)

    def resize(self, bound: int, trace: Trace | None = None) -> None:
        """Set another bound; what is beyond it goes, the least recently used first."""
        with self._shared.changed:
            leaving = self._shelf.resize(bound)
        self._shared.finish(trace, leaving)

    def clear(self) -> None:
        """Forget all."""
        with self._shared.changed:
            leaving = self._shelf.clear()
        self._shared.finish(None, leaving)
