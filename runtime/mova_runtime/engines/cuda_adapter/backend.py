"""Backend `cuda`: the adapter of our own kernels, compiled into the bundle by `mova kernels`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mova_runtime.bundle.manifest import Precision
from mova_runtime.engines.cuda.arena import arena
from mova_runtime.engines.cuda.memory import device
from mova_runtime.engines.cuda_adapter import libraries, lookup
from mova_runtime.engines.cuda_adapter.engine import CudaAdapterEngine
from mova_runtime.engines.failure import failure
from mova_runtime.engines.machine import identity_of
from mova_runtime.engines.memory import Memory, Need
from mova_runtime.engines.needs.guess import working
from mova_runtime.engines.nvidia import gpu
from mova_runtime.engines.protocol import GpuMemory
from mova_runtime.errors import BackendError

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle


class CudaAdapterBackend:
    """Loads the adapter, and nothing else."""

    name = "cuda"

    def __init__(self, precision: Precision) -> None:
        """Import what it needs.

        Raises:
            BackendError: there is no GPU or driver, or a library is missing or does not start.
        """
        self.precision: Precision = precision
        self._libraries = libraries.load()  # asks for the GPU first
        self._arena = arena(device())

    def identity(self, bundle: Bundle, component: str) -> dict[str, str]:
        """See `Backend.identity`."""
        parts = lookup.find(bundle, component, self.precision)
        return {
            "engine": parts.sha256,
            "backend": self.name,
            "precision": self.precision,
            "version": f"triton {parts.kernels.triton}, {libraries.versions()}",
            **identity_of("cuda"),
        }

    def need(self, bundle: Bundle, component: str) -> Need:
        """See `Backend.need`."""
        size = lookup.find(bundle, component, self.precision).bytes
        run = working(bundle, component, size)
        # Activations are in the arena, and so are held as long as the engine. The file is mapped while it is copied.
        return Need(Memory(0, size + run), Memory(0, run), Memory(size, size + run))

    def start(self) -> GpuMemory | None:
        """See `Backend.start`."""
        found = gpu()
        return None if found and found.shares_memory else self._arena.device

    def load(self, bundle: Bundle, component: str) -> CudaAdapterEngine:
        """See `Backend.load`."""
        parts = lookup.find(bundle, component, self.precision)
        cubins = {name: bundle.path(kernel.file) for name, kernel in parts.kernels.kernels.items()}
        with self._arena.lock:
            try:
                return CudaAdapterEngine(self._libraries, parts, cubins, bundle.path(parts.weights.file), self._arena)
            except (BackendError, OSError, MemoryError) as error:
                raise failure(f"{self.name}: can't load {component!r}", error) from error
