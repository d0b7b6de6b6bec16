"""TensorRT 10 and 11 and TensorRT-RTX: one API, one code. Runs engines that `mova build` put into the bundle."""

from __future__ import annotations

import contextlib
import mmap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mova_runtime.bundle.engine import EngineRecord, Flavour
from mova_runtime.bundle.manifest import Precision
from mova_runtime.engines.cuda.arena import arena
from mova_runtime.engines.cuda.memory import device
from mova_runtime.engines.failure import failure
from mova_runtime.engines.machine import identity_of
from mova_runtime.engines.memory import Memory, Need
from mova_runtime.engines.needs.guess import working
from mova_runtime.engines.nvidia import gpu
from mova_runtime.engines.pages import read_in
from mova_runtime.engines.protocol import GpuMemory
from mova_runtime.engines.trt import library, lookup
from mova_runtime.engines.trt.engine import TensorRtEngine
from mova_runtime.engines.trt.messages import log, why
from mova_runtime.errors import BackendError

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle


class TensorRtBackend:
    """Deserialises engines that were built for this machine."""

    def __init__(self, flavour: Flavour, precision: Precision) -> None:
        """Start the library.

        Raises:
            BackendError: there is no GPU or driver, or a library is missing or does not start.
        """
        self.name: str = flavour
        self.precision: Precision = precision
        self._machine = lookup.machine(flavour)  # asks for the GPU, without which TensorRT ends the process
        self._trt = library.load(flavour)
        self._arena = arena(device())
        self._loading = threading.Lock()
        try:
            self._runtime = self._trt.Runtime(log(self._trt))
        except (RuntimeError, TypeError) as error:
            raise BackendError(f"{flavour}: does not start ({error}): {why(self._trt)}") from None

    def identity(self, bundle: Bundle, component: str) -> dict[str, str]:
        """See `Backend.identity`."""
        return {
            "engine": self._record(bundle, component).file.sha256,
            "backend": self.name,
            "precision": self.precision,
            "version": self._machine.version,
            **identity_of("cuda"),
        }

    def need(self, bundle: Bundle, component: str) -> Need:
        """See `Backend.need`."""
        size = self._record(bundle, component).file.bytes
        run = working(bundle, component, size)
        # Activations are in the arena, and so are held as long as the engine. The file is mapped while it is copied.
        return Need(Memory(0, size + run), Memory(0, run), Memory(size, size + run))

    def start(self) -> GpuMemory | None:
        """See `Backend.start`."""
        found = gpu()
        return None if found and found.shares_memory else self._arena.device

    def load(self, bundle: Bundle, component: str) -> TensorRtEngine:
        """See `Backend.load`."""
        record = self._record(bundle, component)
        path = lookup.checked(bundle, record, self._machine)
        try:
            read_in(path)
            with self._loading:  # not the arena's lock: other engines may run meanwhile
                engine = self._map(path)
            with self._arena.lock:
                return TensorRtEngine(self._trt, engine, record, self._arena)
        except (BackendError, OSError, ValueError, MemoryError) as error:
            raise failure(f"{self.name}: can't load {component!r}", error) from error

    def _record(self, bundle: Bundle, component: str) -> EngineRecord:
        return lookup.find(bundle, component, self.precision, self._machine)

    def _map(self, path: Path) -> Any:
        """An engine of a file, whose bytes need no memory of their own beside the engine's."""
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            try:
                return self._deserialise(data)
            finally:
                with contextlib.suppress(BufferError):  # a library that holds on to it
                    data.close()

    def _deserialise(self, data: mmap.mmap) -> Any:
        if hasattr(self._runtime, "get_engine_validity"):  # TensorRT-RTX's
            validity, diagnostics = self._runtime.get_engine_validity(data)
            if validity == self._trt.EngineValidity.INVALID:
                raise BackendError(f"the engine is not valid here ({diagnostics}): {why(self._trt)}")
        engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise BackendError(why(self._trt))
        return engine
