"""What one pass of the adapter asks of a GPU: launches and matrix products, queued in order."""

from __future__ import annotations

from typing import Protocol


class Work(Protocol):
    """Queues. Memory is given by address; T is the type of activations and matrices."""

    def constant(self, kernel: str, name: str) -> int:
        """What a kernel was compiled with, such as a tile's size.

        Raises:
            BackendError: its record does not say.
        """

    def launch(self, kernel: str, grid: tuple[int, ...], **arguments: int | float) -> None:
        """Queue a kernel.

        Args:
            kernel: its variant's name, such as "self_attention".
            grid: number of programs along one to three axes.
            **arguments: by the kernel's own names: addresses and numbers.

        Raises:
            BackendError: there is no such kernel, it takes other arguments, or CUDA refuses.
        """

    def matmul(
        self, a: int, b: int, out: int, sizes: tuple[int, int, int], *, float32: bool = False, add: bool = False
    ) -> None:
        """Queue out = a·bᵀ, or out += a·bᵀ; everything row-major, sums in float32.

        Args:
            a: [M, K] T.
            b: [N, K] T.
            out: [M, N] T, or float32.
            sizes: M, N, K.
            float32: out is float32.
            add: to what is in out.

        Raises:
            BackendError: cuBLAS refuses.
        """

    def matmul_pairs(self, a: int, b: int, out: int, sizes: tuple[int, int, int], pairs: int) -> None:
        """Queue out[p] = a[p]·b[p]ᵀ, all T, for addresses out of tables on the device: [pairs] 64-bit each."""
