"""What TensorRT-RTX has and TensorRT has not: kernels compiled on this machine, kept in a cache, and CUDA graphs."""

from __future__ import annotations

import contextlib
from typing import Any

from mova_runtime.cache_folder import cache_folder, keep


class Jit:
    """Makes an engine's contexts, all with one cache of compiled kernels."""

    def __init__(self, trt: Any, engine: Any, sha256: str) -> None:
        """`sha256` of the engine's file: what was compiled for it before, in any process, is taken up again."""
        self._trt = trt
        self._engine = engine
        self._file = cache_folder() / "runtime" / f"{sha256[:32]}.rtx"
        self._kept = b""
        self._steady, self._varying = self._config(varying=False), self._config(varying=True)
        self._cache = self._steady.create_runtime_cache()
        with contextlib.suppress(OSError):
            # TensorRT-RTX takes nothing from one of another GPU, driver or version, and says so; it is replaced then
            self._kept = self._file.read_bytes()
            self._cache.deserialize(self._kept)
        for config in (self._steady, self._varying):
            config.set_runtime_cache(self._cache)

    def context(self, *, varying: bool) -> Any:
        """A context without memory of its own.

        Args:
            varying: its shapes change with every run, as a growing cache's do. Then neither graphs nor kernels are
                made for a shape, which would take longer than they save; else both are, by TensorRT-RTX itself.
        """
        return self._engine.create_execution_context(self._varying if varying else self._steady)

    def save(self) -> None:
        """Keep what was compiled; a folder that can't be written means that it is compiled again next time."""
        data = bytes(self._cache.serialize())
        if data == self._kept:
            return
        if keep(self._file, data):
            self._kept = data

    def _config(self, *, varying: bool) -> Any:
        trt, config = self._trt, self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if varying:
            config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
            strategies = trt.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = strategies.NONE
        else:
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return config
