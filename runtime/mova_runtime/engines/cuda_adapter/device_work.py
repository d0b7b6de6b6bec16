"""Work on the GPU: kernels and products on one stream."""

from __future__ import annotations

from typing import Any

from mova_runtime.engines.cuda_adapter.kernels import Kernels
from mova_runtime.engines.cuda_adapter.products import Products


class DeviceWork:
    """See `mova_runtime.engines.cuda_adapter.work.Work`. The last one made is the one to queue on."""

    def __init__(self, kernels: Kernels, products: Products, stream: Any, workspace: int) -> None:
        """Queue on one of CUDA's streams; `workspace` is the address of memory that products may write over.

        Raises:
            BackendError: cuBLAS does not take them.
        """
        self._kernels = kernels
        self._products = products
        self._stream = kernels.stream(stream)
        products.use(stream, workspace)

    def constant(self, kernel: str, name: str) -> int:
        """See `Work.constant`."""
        return self._kernels.constant(kernel, name)

    def launch(self, kernel: str, grid: tuple[int, ...], **arguments: int | float) -> None:
        """See `Work.launch`."""
        self._kernels.launch(self._stream, kernel, grid, arguments)

    def matmul(
        self, a: int, b: int, out: int, sizes: tuple[int, int, int], *, float32: bool = False, add: bool = False
    ) -> None:
        """See `Work.matmul`."""
        self._products.matmul(a, b, out, sizes, float32=float32, add=add)

    def matmul_pairs(self, a: int, b: int, out: int, sizes: tuple[int, int, int], pairs: int) -> None:
        """See `Work.matmul_pairs`."""
        self._products.matmul_pairs(a, b, out, sizes, pairs)
