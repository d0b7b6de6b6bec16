"""Every engine of a runtime: loaded when first leased, kept, and unloaded when a budget needs the room."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from mova_runtime.bundle import Bundle
from mova_runtime.engines.budget import format_size
from mova_runtime.engines.loader import Loader
from mova_runtime.engines.protocol import Engine
from mova_runtime.errors import MemoryBudgetError, MovaError
from mova_runtime.trace import Trace


@dataclass
class _Loaded:
    engine: Engine
    users: int = 0
    last_used: int = 0


class EnginePool:
    """Leases engines by component name. A leased engine stays; one nobody leases may go when room is needed."""

    def __init__(self, bundle: Bundle, loader: Loader, budget: int | None = None) -> None:
        """`budget` in bytes bounds the sum of the loaded engines' files; None is no bound."""
        self._bundle = bundle
        self._loader = loader
        self._budget = budget
        self._lock = threading.RLock()
        self._loaded: dict[str, _Loaded] = {}
        self._clock = 0
        self._closed = False

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the engines in memory, in the manifest's order."""
        with self._lock:
            return tuple(name for name in self._bundle.manifest.components if name in self._loaded)

    @contextlib.contextmanager
    def lease(self, component: str, trace: Trace) -> Iterator[Engine]:
        """The component's engine, for the duration of the block.

        Raises:
            MemoryBudgetError: it does not fit the budget beside what is in use.
            BundleError, BackendError: it can't be loaded (see `Loader.load`).
            MovaError: the pool was closed.
        """
        with self._lock:
            if self._closed:
                raise MovaError("the runtime is closed")
            if component not in self._loaded:
                self._loaded[component] = _Loaded(self._load(component, trace))
            entry = self._loaded[component]
            entry.users += 1
            self._clock += 1
            entry.last_used = self._clock
        try:
            yield entry.engine
        finally:
            with self._lock:
                entry.users -= 1
                if self._closed:
                    self._unload_idle()

    def close(self) -> None:
        """Unload everything: what is leased, when it comes back."""
        with self._lock:
            self._closed = True
            self._unload_idle()

    def _unload_idle(self) -> None:
        for name in [name for name, entry in self._loaded.items() if not entry.users]:
            self._loaded.pop(name).engine.close()

    def _load(self, component: str, trace: Trace) -> Engine:
        if self._budget is not None:
            self._make_room(component, self._loader.size(component), self._budget)
        engine = self._loader.load(component, trace)
        try:
            if self._budget is not None:
                self._make_room(component, engine.bytes, self._budget)  # a fallback's engine may be larger
        except MemoryBudgetError:
            engine.close()
            raise
        return engine

    def _make_room(self, component: str, needed: int, budget: int) -> None:
        used = {name: entry.engine.bytes for name, entry in self._loaded.items()}
        idle = [name for name, entry in self._loaded.items() if not entry.users]
        idle.sort(key=lambda name: self._loaded[name].last_used)
        fixed = sum(used.values()) - sum(used[name] for name in idle)
        if fixed + needed > budget:
            raise MemoryBudgetError(
                f"engine {component!r} needs {format_size(needed)}; the budget is {format_size(budget)}, "
                f"of which {format_size(fixed)} is in use"
            )
        for name in idle:
            if sum(used.values()) + needed <= budget:
                break
            self._loaded.pop(name).engine.close()
            del used[name]
