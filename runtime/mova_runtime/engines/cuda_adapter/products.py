"""Matrix products by cuBLAS.

cuBLAS has columns where we have rows: what is a row-major [M, N] to us is to it a matrix [N, M]. So out = a·bᵀ is asked
for as outᵀ = b·aᵀ, where b, in its eyes transposed, is turned, and a is taken as it lies.
"""

from __future__ import annotations

import ctypes
from typing import Any

from mova_runtime.engines.cuda_adapter.kernels import told
from mova_runtime.engines.cuda_adapter.layout import WORKSPACE
from mova_runtime.engines.cuda_adapter.libraries import cublas_package
from mova_runtime.errors import BackendError

_TYPES = {"fp32": 0, "fp16": 2, "bf16": 14}
"""CUDA_R_32F, CUDA_R_16F and CUDA_R_16BF of cudaDataType, by Triton's names."""


class Products:
    """A handle of cuBLAS. Not for several threads at once."""

    def __init__(self, cublas: Any, precision: str) -> None:
        """Start cuBLAS; CUDA's context is this thread's.

        Args:
            cublas: nvmath.bindings.cublas.
            precision: T.

        Raises:
            BackendError: its library is missing, or does not start.
        """
        self._cublas = cublas
        self._type = _TYPES[precision]
        self._handle: int | None = None
        self._factors = (ctypes.c_float * 2)(0.0, 1.0)  # read when a product is queued
        try:
            self._handle = cublas.create()
            # float16 products in parts are to be summed in float32 as well
            mode = cublas.Math.DEFAULT_MATH | cublas.Math.DISALLOW_REDUCED_PRECISION_REDUCTION
            cublas.set_math_mode(self._handle, int(mode))
        except cublas.cuBLASError as error:
            self.close()
            raise BackendError(f"cuBLAS does not start: {told(error)}") from error
        except Exception as error:  # the library's absence is told in several ways
            raise BackendError(f"cuBLAS can't be loaded ({told(error)}); pip install {cublas_package()}") from error

    def use(self, stream: Any, workspace: int) -> None:
        """Queue on this stream from now on, with WORKSPACE bytes at an address: capturing, it could allocate none."""
        self._call("set_stream", stream_id=int(stream))
        self._call("set_workspace", workspace=workspace, workspace_size_in_bytes=WORKSPACE)  # a new stream resets it

    def matmul(
        self, a: int, b: int, out: int, sizes: tuple[int, int, int], *, float32: bool = False, add: bool = False
    ) -> None:
        """See `Work.matmul`."""
        rows, columns, inner = sizes
        self._call(
            "gemm_ex",
            **self._shared(rows, columns, inner, add=add),
            a=b,
            b=a,
            c=out,
            ctype=_TYPES["fp32"] if float32 else self._type,
        )

    def matmul_pairs(self, a: int, b: int, out: int, sizes: tuple[int, int, int], pairs: int) -> None:
        """See `Work.matmul_pairs`."""
        rows, columns, inner = sizes
        self._call(
            "gemm_batched_ex",
            **self._shared(rows, columns, inner, add=False),
            aarray=b,
            barray=a,
            carray=out,
            ctype=self._type,
            batch_count=pairs,
        )

    def close(self) -> None:
        """Give the handle back; nothing of it may be running."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._cublas.destroy(handle)

    def _shared(self, rows: int, columns: int, inner: int, *, add: bool) -> dict[str, int]:
        """What both products say alike."""
        cublas, zero = self._cublas, ctypes.addressof(self._factors)
        one = zero + ctypes.sizeof(ctypes.c_float)
        return {
            "transa": int(cublas.Operation.T),
            "transb": int(cublas.Operation.N),
            "m": columns,
            "n": rows,
            "k": inner,
            "alpha": one,
            "atype": self._type,
            "lda": inner,
            "btype": self._type,
            "ldb": inner,
            "beta": one if add else zero,
            "ldc": columns,
            "compute_type": int(cublas.ComputeType.COMPUTE_32F),
            "algo": int(cublas.GemmAlgo.DFALT),
        }

    def _call(self, name: str, **arguments: int) -> None:
        try:
            getattr(self._cublas, name)(handle=self._handle, **arguments)
        except Exception as error:  # its exceptions share no base but Exception
            raise BackendError(f"cuBLAS: {name} failed: {told(error)}") from error
