"""An engine in the GPU's memory. Every call of it returns when the GPU is done: times and errors are the call's own."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from mova_runtime.bundle.engine import EngineRecord
from mova_runtime.engines.cuda.arena import Arena
from mova_runtime.engines.cuda.array import DeviceArray, place
from mova_runtime.engines.cuda.binding import DeviceBinding
from mova_runtime.engines.cuda.graphs import LIMIT
from mova_runtime.engines.failure import failure
from mova_runtime.engines.memory import Memory
from mova_runtime.engines.protocol import Cache, Inputs
from mova_runtime.engines.release import release
from mova_runtime.engines.trt.context import Context
from mova_runtime.engines.trt.graphs import Graphs
from mova_runtime.engines.trt.jit import Jit
from mova_runtime.engines.trt.signature import PROFILE, Signature
from mova_runtime.errors import BackendError


class TensorRtEngine:
    """A deserialised engine: weights of its own, activations in the arena that all engines share."""

    cache: Cache = "growing"

    def __init__(self, trt: Any, engine: Any, record: EngineRecord, arena: Arena) -> None:
        """Take over an engine; who calls holds the arena's lock.

        Raises:
            BackendError: it exchanges what others don't, or there is no room for its activations.
        """
        self.name = record.key.component
        self._flavour = record.key.flavour
        self._trt = trt
        self._engine = engine
        self._arena = arena
        self._signature = Signature.of(trt, engine)
        self._jit = Jit(trt, engine, record.file.sha256) if record.key.flavour == "tensorrt-rtx" else None
        # TensorRT-RTX captures by itself
        self._graphs = Graphs(arena, self._signature, self._context, 0 if self._jit else LIMIT)
        self._need = int(engine.get_device_memory_size_for_profile_v2(PROFILE))
        self._fresh = True
        self._bindings: weakref.WeakSet[DeviceBinding] = weakref.WeakSet()
        self.least = Memory(0, record.file.bytes + self._need)
        arena.join(self._need)

    def run(self, inputs: Inputs, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Engine.run`."""
        with self._working():
            names = list(outputs or self._signature.outputs)
            if unknown := sorted({*names} - {*self._signature.outputs}):
                raise BackendError(f"no output {', '.join(unknown)}; there are {', '.join(self._signature.outputs)}")
            found = self._compute(inputs)
            return {name: found[name].numpy() for name in names}

    def keep(self, inputs: Inputs) -> dict[str, DeviceArray]:
        """See `Engine.keep`."""
        with self._working() as arena:
            found = self._compute(inputs, own=True)
            arena.device.synchronise()
            return found

    def step(self, inputs: Inputs) -> dict[str, DeviceArray]:
        """Like `keep`, for shapes that change with every run: nothing is prepared for their coming again."""
        with self._working() as arena:
            shapes = self._signature.shapes(inputs)
            found = self._varying.run({name: place(arena.device, inputs[name]) for name in shapes})
            arena.device.synchronise()
            return found

    def bind(self) -> DeviceBinding:
        """See `Engine.bind`."""
        binding = DeviceBinding(self.step)
        self._bindings.add(binding)
        return binding

    def close(self) -> None:
        """See `Engine.close`."""
        with self._arena.lock:
            if self._engine is None:
                return
            for binding in tuple(self._bindings):
                binding.close()
            # A failure here has been told by the run that it comes from.
            with contextlib.suppress(BackendError):
                self._save()
                self._graphs.close()
            for name in ("_steady", "_varying"):
                self.__dict__.pop(name, None)
            self._engine = self._jit = None
            with contextlib.suppress(BackendError):
                self._arena.leave(self._need)
            with contextlib.suppress(BackendError):
                self._arena.device.trim()
        release()

    @contextlib.contextmanager
    def _working(self) -> Iterator[Arena]:
        with self._arena.lock:
            try:
                if self._engine is None:
                    raise BackendError("it was closed")
                yield self._arena
            except BackendError as error:
                raise failure(f"{self._flavour}: {self.name!r}", error) from error
            if self._fresh:  # its kernels were compiled now, if they were not before
                self._fresh = False
                self._save()

    def _compute(self, inputs: Inputs, *, own: bool = False) -> dict[str, DeviceArray]:
        """Queue a run. `own`: the outputs stay what they are when the engine runs again."""
        shapes = self._signature.shapes(inputs)
        found = self._graphs.run(shapes, inputs)
        if found is None:
            return self._steady.run({name: place(self._arena.device, inputs[name]) for name in shapes})
        return {name: array.copy() for name, array in found.items()} if own else found

    @cached_property
    def _steady(self) -> Context:
        return self._context()

    @cached_property
    def _varying(self) -> Context:
        return self._context(varying=True)

    def _context(self, *, varying: bool = False) -> Context:
        def create() -> Any:
            if self._jit:
                return self._jit.context(varying=varying)
            strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
            return self._engine.create_execution_context(strategy)

        return Context(self._trt, create, self._signature, self._arena)

    def _save(self) -> None:
        if self._jit:
            self._jit.save()
