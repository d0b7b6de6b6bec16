"""Backend `cuda`: the adapter of our own kernels, compiled into the bundle by `mova kernels`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mova_runtime.bundle.manifest import Precision
from mova_runtime.engines.cuda.arena import arena
from mova_runtime.engines.cuda.memory import device
from mova_runtime.engines.cuda_adapter import libraries, lookup
from mova_runtime.engines.cuda_adapter.engine import CudaAdapterEngine
from mova_runtime.engines.machine import identity_of
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

    def size(self, bundle: Bundle, component: str) -> int:
        """See `Backend.size`."""
        return lookup.find(bundle, component, self.precision).bytes

    def load(self, bundle: Bundle, component: str) -> CudaAdapterEngine:
        """See `Backend.load`."""
        parts = lookup.find(bundle, component, self.precision)
        cubins = {name: bundle.path(kernel.file) for name, kernel in parts.kernels.kernels.items()}
        with self._arena.lock:
            try:
                return CudaAdapterEngine(self._libraries, parts, cubins, bundle.path(parts.weights.file), self._arena)
            except (BackendError, OSError) as error:
                raise BackendError(f"{self.name}: can't load {component!r}: {error}") from error
