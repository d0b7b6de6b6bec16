# ruff: noqa: N802  # the names are CUDA's
"""cuda.core and cuda.bindings.driver on the host: a "cubin" names a Triton kernel, which Triton's interpreter runs.

A launch waits in its stream, over fake_cuda's memory. What it is given is looked at as a driver would, and harder.
"""

from __future__ import annotations

import ctypes
import importlib
import json
from dataclasses import dataclass
from enum import IntEnum
from types import SimpleNamespace

from fake_cuda import FakeCuda
from raw_memory import tensor_at

PLAIN_SHARED = 48 << 10

SCALARS = {"i32": ctypes.c_int32, "i64": ctypes.c_int64, "fp32": ctypes.c_float}


def cubin(kernel: str, arguments, constants) -> bytes:
    """What stands for machine code: "module:function", (name, Triton's type) of its arguments, its constants."""
    return json.dumps({"kernel": kernel, "arguments": arguments, "constants": constants}).encode()


class CUDAError(Exception):
    """As cuda.core's: derived from Exception alone."""


class FakeKernel:
    def __init__(self, told) -> None:
        self.name = told["kernel"].partition(":")[2]
        self.module = told["kernel"].partition(":")[0]
        self.arguments, self.constants = told["arguments"], told["constants"]
        self.handle = self
        self.allowed = PLAIN_SHARED


class FakeCore:
    """The module cuda.core.

    refuses: CUDA's name for the error with which no cubin loads; launched: every launch that was queued, by symbol;
    idle: kernels do nothing, for who looks at what is queued and not at what comes out.
    """

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.refuses = ""
        self.launched: list[str] = []
        self.idle = False
        self.fails = ""
        self.ObjectCode = SimpleNamespace(from_cubin=self._from_cubin)
        self.Stream = SimpleNamespace(from_handle=self._stream)

    def _from_cubin(self, module, *, name=""):
        self.cuda.check_context(CUDAError)
        if self.refuses:
            raise CUDAError(f"{self.refuses}: This indicates that something is not so. Ask somebody.")
        kernel = FakeKernel(json.loads(module))

        def get_kernel(symbol):
            if symbol != kernel.name:
                raise CUDAError("CUDA_ERROR_NOT_FOUND: This indicates that a named symbol was not found.")
            return kernel

        return SimpleNamespace(get_kernel=get_kernel)

    def _stream(self, handle):
        assert type(handle) is int
        return SimpleNamespace(handle=handle)

    def LaunchConfig(self, grid=None, cluster=None, block=None, shmem_size=None):
        return SimpleNamespace(grid=grid, block=block, shmem_size=shmem_size)

    def launch(self, stream, config, kernel, *kernel_args):
        self.cuda.check_context(CUDAError)
        if self.fails:
            raise CUDAError(f"{self.fails}: This happened. Ask somebody.")
        if config.shmem_size > kernel.allowed or config.block % 32 or 0 in config.grid:
            raise CUDAError("CUDA_ERROR_INVALID_VALUE: This indicates that a parameter is not acceptable.")
        *values, scratch, profile = kernel_args
        assert (scratch, profile) == (0, 0)
        given = [_given(of, value) for (_, of), value in zip(kernel.arguments, values, strict=True)]
        self.launched.append(kernel.name)
        if not self.idle:
            self.cuda.queue(stream.handle, lambda: self._run(kernel, config.grid, given))

    def _run(self, kernel, grid, given):
        values = [self._memory(value) if isinstance(value, Pointer) else value for value in given]
        function = getattr(importlib.import_module(kernel.module), kernel.name)
        function[grid](*values, **kernel.constants)

    def _memory(self, pointer):
        self.cuda.check(pointer.address, 1)
        return tensor_at(pointer.address, pointer.of, 1)


class FakeDriver:
    """The module cuda.bindings.driver."""

    CUresult = IntEnum("CUresult", {"CUDA_SUCCESS": 0, "CUDA_ERROR_INVALID_VALUE": 1})
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8)

    def __init__(self, shared: int = 99 << 10) -> None:
        self.shared = shared

    def cuDeviceGet(self, ordinal):
        return self.CUresult.CUDA_SUCCESS, ordinal

    def cuKernelSetAttribute(self, attrib, val, kernel, dev):
        assert (attrib, dev) == (8, 0)
        if val > self.shared:
            return (self.CUresult.CUDA_ERROR_INVALID_VALUE,)
        kernel.allowed = val
        return (self.CUresult.CUDA_SUCCESS,)


@dataclass(frozen=True)
class Pointer:
    of: str
    address: int


def _given(of, value):
    """An argument as it arrives: a driver reads as many bytes as the kernel takes, whatever they were meant as."""
    if of.startswith("*"):
        assert type(value) is int, f"{value!r} is no address"
        return Pointer(of[1:], value)
    assert type(value) is SCALARS[of], f"{value!r} is no {of}"
    return value.value
