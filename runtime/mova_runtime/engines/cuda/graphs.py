"""CUDA graphs: work that comes again is captured, and from then on queued in one call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

from mova_runtime.engines.cuda.arena import Arena
from mova_runtime.engines.cuda.memory import Device
from mova_runtime.errors import BackendError

LIMIT = 4
"""Graphs of an engine. The one unused longest goes first."""


class Captured:
    """Work that was queued on a stream while it captured."""

    def __init__(self, device: Device, queue: Callable[[Any], None]) -> None:
        """Capture what `queue` queues on the stream that it is given; it must have been queued before, for real.

        Raises:
            BackendError: it can't be captured.
        """
        stream = device.capturing
        mode = device.cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal  # other threads go on allocating
        self._device = device
        device.synchronise()
        device.call("cudaStreamBeginCapture", stream, mode)
        try:
            queue(stream)
        except BaseException:
            device.cudart.cudaStreamEndCapture(stream)  # whatever it says: the stream must be let go
            raise
        graph = device.call("cudaStreamEndCapture", stream)
        try:
            self._launchable = device.call("cudaGraphInstantiate", graph, 0)
        finally:
            device.call("cudaGraphDestroy", graph)

    def launch(self) -> None:
        """Queue the work on the device's stream."""
        self._device.call("cudaGraphLaunch", self._launchable, self._device.stream)

    def close(self) -> None:
        """Give it back; nothing of it may be running."""
        if self._launchable is not None:
            self._device.call("cudaGraphExecDestroy", self._launchable)
            self._launchable = None


class Closable(Protocol):
    """What can be given back."""

    def close(self) -> None:
        """Give it back."""


Graph = TypeVar("Graph", bound=Closable)


class Recurring(Generic[Graph]):
    """An engine's graphs by what they are for, such as its inputs' shapes. Who calls holds the arena's lock."""

    def __init__(self, arena: Arena, limit: int = LIMIT) -> None:
        """A `limit` of 0 captures nothing."""
        self._arena = arena
        self._limit = limit
        self._generation = arena.generation
        self._seen: OrderedDict[Hashable, Graph | None] = OrderedDict()
        self.refused = ""
        """Why this engine's work can't be captured."""

    def get(self, key: Hashable, capture: Callable[[], Graph]) -> Graph | None:
        """The graph of a key; None where it has none: asked for the first time, or not to be captured.

        Args:
            key: what the graph is for.
            capture: makes it, when it is asked for a second time: what comes once is not worth it.
        """
        if not self._limit or self.refused:
            return None
        if self._generation != self._arena.generation:
            self.close()
            self._generation = self._arena.generation
        known = key in self._seen
        graph = self._seen.pop(key, None)
        self._seen[key] = graph  # the latest is last
        if not known:
            self._forget(self._limit)
            return None
        try:
            self._seen[key] = graph = graph or capture()
        except BackendError as error:  # no room for it, or a library that can't: this engine runs without
            self.close()
            self.refused = str(error)
            return None
        return graph

    def close(self) -> None:
        """Give all graphs back."""
        self._forget(0)

    def _forget(self, keep: int) -> None:
        while len(self._seen) > keep:
            _, graph = self._seen.popitem(last=False)
            if graph:
                self._arena.device.synchronise()
                graph.close()
