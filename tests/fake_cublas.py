"""nvmath.bindings.cublas on the host: column-major products as BLAS defines them, over fake_cuda's memory.

A product waits in its stream, and writes over all of its workspace, of which it must have been given one.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum, IntFlag

import torch

from fake_cuda import FakeCuda
from raw_memory import DTYPES, tensor_at

_TYPES = {0: "fp32", 2: "fp16", 14: "bf16"}
"""Triton's names by cudaDataType."""


class FakeCublas:
    """The module."""

    class cuBLASError(Exception):  # noqa: N801
        pass

    Operation = IntEnum("Operation", {"N": 0, "T": 1})
    ComputeType = IntEnum("ComputeType", {"COMPUTE_32F": 68})
    GemmAlgo = IntEnum("GemmAlgo", {"DFALT": -1})
    Math = IntFlag("Math", {"DEFAULT_MATH": 0, "DISALLOW_REDUCED_PRECISION_REDUCTION": 16})

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.missing = False
        self.handles: dict[int, dict[str, int]] = {}
        self.products = 0
        self.fails = ""

    def create(self):
        if self.missing:
            raise RuntimeError("Failed to load libcublas.so.12\nIt was looked for everywhere.")
        self.cuda.check_context(self.cuBLASError)
        handle = 1000 + len(self.handles)
        self.handles[handle] = {}
        return handle

    def destroy(self, handle):
        del self.handles[handle]

    def set_stream(self, handle, stream_id):
        assert type(stream_id) is int
        self.handles[handle] |= {"stream": stream_id, "workspace": 0}

    def set_workspace(self, handle, workspace, workspace_size_in_bytes):
        assert workspace % 256 == 0
        self.handles[handle] |= {"workspace": workspace, "size": workspace_size_in_bytes}

    def set_math_mode(self, handle, mode):
        self.handles[handle]["mode"] = mode

    def gemm_ex(
        self, handle, transa, transb, m, n, k, alpha, a, atype, lda, b, btype, ldb, beta, c, ctype, ldc,
        compute_type, algo,
    ):  # fmt: skip
        numbers = self._numbers(alpha, beta, compute_type, algo)

        def product():
            left = self._matrix(a, atype, lda, *((k, m) if transa else (m, k)))
            right = self._matrix(b, btype, ldb, *((n, k) if transb else (k, n)))
            out = self._matrix(c, ctype, ldc, m, n)
            _multiply(left.T if transa else left, right.T if transb else right, out, *numbers)

        self._queue(handle, product)

    def gemm_batched_ex(
        self, handle, transa, transb, m, n, k, alpha, aarray, atype, lda, barray, btype, ldb, beta, carray, ctype, ldc,
        batch_count, compute_type, algo,
    ):  # fmt: skip
        numbers = self._numbers(alpha, beta, compute_type, algo)

        def products():
            tables = [self._table(table, batch_count) for table in (aarray, barray, carray)]
            for a, b, c in zip(*tables, strict=True):
                left = self._matrix(a, atype, lda, *((k, m) if transa else (m, k)))
                right = self._matrix(b, btype, ldb, *((n, k) if transb else (k, n)))
                out = self._matrix(c, ctype, ldc, m, n)
                _multiply(left.T if transa else left, right.T if transb else right, out, *numbers)

        self._queue(handle, products)

    def _numbers(self, alpha, beta, compute_type, algo):
        """Read when the product is queued, as in cuBLAS's default pointer mode."""
        assert (compute_type, algo) == (68, -1)
        return ctypes.c_float.from_address(alpha).value, ctypes.c_float.from_address(beta).value

    def _queue(self, handle, work):
        if self.fails:
            raise self.cuBLASError(self.fails)
        state = self.handles[handle]
        workspace, size = state["workspace"], state["size"]
        assert workspace, "no workspace since the stream was set"
        assert state["mode"] == 16
        self.products += 1

        def run():
            self.cuda.check(workspace, size)
            ctypes.memset(workspace, 0xFF, size)
            work()

        self.cuda.queue(state["stream"], run)

    def _matrix(self, address, of, leading, rows, columns):
        """[rows, columns], column-major."""
        dtype = DTYPES[_TYPES[of]]
        count = leading * (columns - 1) + rows
        assert leading >= rows
        assert address % 16 == 0
        self.cuda.check(address, count * dtype.itemsize)
        return tensor_at(address, _TYPES[of], count).as_strided((rows, columns), (1, leading))

    def _table(self, address, count):
        self.cuda.check(address, 8 * count)
        return tensor_at(address, "i64", count).tolist()


def _multiply(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor, alpha: float, beta: float) -> None:
    total = alpha * (left.float() @ right.float())
    out.copy_(total + beta * out.float() if beta else total)
