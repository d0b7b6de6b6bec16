"""The adapter in the GPU's memory. Every call returns when the GPU is done: times and errors are the call's own."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mova_runtime.bundle.kernels import ADAPTER
from mova_runtime.engines.cuda.arena import Arena
from mova_runtime.engines.cuda.array import DeviceArray
from mova_runtime.engines.cuda.binding import DeviceBinding
from mova_runtime.engines.cuda.graphs import Captured, Recurring
from mova_runtime.engines.cuda_adapter.device_work import DeviceWork
from mova_runtime.engines.cuda_adapter.forward import forward
from mova_runtime.engines.cuda_adapter.inputs import check, copy_in
from mova_runtime.engines.cuda_adapter.kernels import Kernels
from mova_runtime.engines.cuda_adapter.layout import Layout, lay_out
from mova_runtime.engines.cuda_adapter.libraries import Libraries
from mova_runtime.engines.cuda_adapter.lookup import Parts
from mova_runtime.engines.cuda_adapter.products import Products
from mova_runtime.engines.cuda_adapter.sizes import Sizes
from mova_runtime.engines.cuda_adapter.weights import Weights
from mova_runtime.engines.failure import failure
from mova_runtime.engines.memory import Memory
from mova_runtime.engines.protocol import Cache, Inputs
from mova_runtime.engines.release import release
from mova_runtime.errors import BackendError

OUTPUTS = ("visual", "gates")


class CudaAdapterEngine:
    """Weights of its own; everything that lives for a run is in the arena that all engines share.

    A pass has the same addresses whenever as many images and pairs come, so it is captured the second time, and then
    queued in one call. Inputs come from other addresses each time: they are copied in before it.
    """

    cache: Cache = "growing"

    def __init__(
        self, libraries: Libraries, parts: Parts, cubins: dict[str, Path], weights: Path, arena: Arena
    ) -> None:
        """Load kernels and weights, whose bytes are known to be right; who calls holds the arena's lock.

        Raises:
            IntegrityError: the weights are not an adapter's.
            BackendError: CUDA or cuBLAS refuses, or there is no room.
        """
        self.name = ADAPTER
        self._arena = arena
        arena.device.make_current()
        self._kernels = Kernels(libraries, parts.kernels.kernels, cubins)
        self._sizes = Sizes.of(parts.kernels.shape, parts.kernels.precision, self._kernels.constant)
        self._weights: Weights | None = Weights(arena.device, weights, parts.weights)
        self._graphs: Recurring[Captured] = Recurring(arena)
        self._need = lay_out(self._sizes, 1, self._sizes.shape.top_k).end
        self.least = Memory(0, parts.bytes + self._need)
        self._bindings: weakref.WeakSet[DeviceBinding] = weakref.WeakSet()
        arena.join(self._need)
        try:
            self._products = Products(libraries.cublas, parts.kernels.precision)
        except BackendError:
            arena.leave(self._need)
            raise

    def run(self, inputs: Inputs, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Engine.run`."""
        with self._working() as weights:
            names = list(outputs or OUTPUTS)
            if unknown := sorted({*names} - {*OUTPUTS}):
                raise BackendError(f"no output {', '.join(unknown)}; there are {', '.join(OUTPUTS)}")
            found = self._compute(inputs, weights)
            return {name: found[name].numpy() for name in names}

    def keep(self, inputs: Inputs) -> dict[str, DeviceArray]:
        """See `Engine.keep`."""
        with self._working() as weights:
            kept = {name: array.copy() for name, array in self._compute(inputs, weights).items()}
            self._arena.device.synchronise()
            return kept

    def bind(self) -> DeviceBinding:
        """See `Engine.bind`."""
        binding = DeviceBinding(self.keep)
        self._bindings.add(binding)
        return binding

    def close(self) -> None:
        """See `Engine.close`."""
        with self._arena.lock:
            if self._weights is None:
                return
            for binding in tuple(self._bindings):
                binding.close()
            # A failure here has been told by the run that it comes from.
            with contextlib.suppress(BackendError):
                self._arena.device.make_current()
                self._arena.device.synchronise()
            for give_back in (self._graphs.close, self._products.close, lambda: self._arena.leave(self._need)):
                with contextlib.suppress(BackendError):
                    give_back()
            self._weights = None
            del self._kernels
            with contextlib.suppress(BackendError):
                self._arena.device.trim()
        release()

    @contextlib.contextmanager
    def _working(self) -> Iterator[Weights]:
        with self._arena.lock:
            try:
                if self._weights is None:
                    raise BackendError("it was closed")
                self._arena.device.make_current()
                yield self._weights
            except BackendError as error:
                raise failure(f"cuda: {self.name!r}", error) from error

    def _compute(self, inputs: Inputs, weights: Weights) -> dict[str, DeviceArray]:
        """Queue a run; its outputs, which the next run of any engine overwrites."""
        pairs = check(inputs, self._sizes.shape)
        at = self._make_room(pairs.batch, len(pairs))
        device = self._arena.device

        def queue(stream: Any) -> None:
            forward(self._work(stream, at), self._sizes, at, weights.addresses)

        copy_in(device, self._work(device.stream, at), self._sizes, at, weights.addresses, inputs, pairs)
        if graph := self._graphs.get((at.batch, at.pairs), lambda: Captured(device, queue)):
            graph.launch()
        else:
            queue(device.stream)
        shape = self._sizes.shape
        return {
            "visual": self._array(at.head.visual, at.batch, self._sizes.visual_tokens, shape.hidden),
            "gates": self._array(at.gates, shape.blocks, at.batch, shape.experts),
        }

    def _make_room(self, batch: int, pairs: int) -> Layout:
        """Where a run's memory is; the arena grows if it must."""
        need = max(lay_out(self._sizes, batch, pairs).end, self._need)
        if need > self._arena.bytes:
            self._arena.join(need)
            self._arena.leave(self._need)
            self._need = need
        return lay_out(self._sizes, batch, pairs, self._arena.pointer)

    def _work(self, stream: Any, at: Layout) -> DeviceWork:
        return DeviceWork(self._kernels, self._products, stream, at.workspace)

    def _array(self, address: int, *shape: int) -> DeviceArray:
        return DeviceArray(self._arena.device, shape, np.float32, address, owner=None)
