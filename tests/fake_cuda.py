# ruff: noqa: N802, N815  # the names are CUDA's
"""cuda.bindings.runtime on the host: as lazy as a GPU. Copies and kernels wait in their stream until it is waited for.

What is freed is forgotten, so that a pointer to it is noticed; a graph replays what was queued while it was captured.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace

import numpy as np

Work = Callable[[], None]


class Error(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorStreamCaptureUnsupported = 900


class FakeCuda:
    cudaError_t = Error
    cudaStreamNonBlocking = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaDeviceAttr = SimpleNamespace(cudaDevAttrMemoryPoolsSupported=115)
    cudaMemPoolAttr = SimpleNamespace(cudaMemPoolAttrReleaseThreshold=4)

    def __init__(self, room: int = 1 << 30, pools: bool = True) -> None:
        self.room = room
        self.pools = pools
        self.lock = threading.RLock()
        self.memory: dict[int, tuple[int, ctypes.Array]] = {}
        self.queues: dict[int, list[Work]] = {}
        self.capturing: dict[int, list[Work]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.calls: list[str] = []
        self.uncapturable = False
        self.shared = False  # with a library whose memory is unknown here
        self.current = threading.local()  # the driver's calls need a context, the runtime's make one
        self._handles = iter(range(1, 1 << 30))

    def __getattribute__(self, name):
        if name.startswith("cuda") and callable(value := object.__getattribute__(self, name)):
            if not isinstance(value, type):
                self.calls.append(name)
            return value
        return object.__getattribute__(self, name)

    @property
    def used(self) -> int:
        return sum(size for size, _ in self.memory.values())

    def array(self, pointer: int, shape, dtype) -> np.ndarray:
        """Device memory as an array of the host."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self.check(pointer, size)
        buffer = (ctypes.c_char * size).from_address(pointer)
        return np.frombuffer(buffer, np.uint8).view(dtype).reshape(shape)

    def check(self, pointer: int, size: int) -> None:
        inside = any(
            start <= pointer and pointer + size <= start + length for start, (length, _) in self.memory.items()
        )
        assert inside or self.shared, f"{size} bytes at {pointer:#x} are not allocated"

    def check_context(self, error: type[Exception]) -> None:
        """What calls of CUDA's driver demand of the thread they come from."""
        if not hasattr(self.current, "device"):
            raise error("CUDA_ERROR_INVALID_CONTEXT: This most frequently indicates that there is no context.")

    def queue(self, stream, work: Work) -> None:
        with self.lock:
            self.capturing.get(stream, self.queues[stream]).append(work)

    # The calls.

    def cudaGetErrorName(self, status):
        return Error.cudaSuccess, status.name.encode()

    def cudaSetDevice(self, device):
        self.current.device = device
        return (Error.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags):
        stream = next(self._handles)
        self.queues[stream] = []
        return Error.cudaSuccess, stream

    def cudaStreamSynchronize(self, stream):
        with self.lock:
            assert stream not in self.capturing
            queue, self.queues[stream] = self.queues[stream], []
            for work in queue:
                work()
        return (Error.cudaSuccess,)

    def cudaDeviceGetAttribute(self, attribute, device):
        return Error.cudaSuccess, int(self.pools)

    def cudaDeviceGetDefaultMemPool(self, device):
        return Error.cudaSuccess, "pool"

    def cudaMemPoolSetAttribute(self, pool, attribute, value):
        return (Error.cudaSuccess,)

    def cudaMemPoolTrimTo(self, pool, size):
        return (Error.cudaSuccess,)

    def cudaMemGetInfo(self):
        for stream in list(self.queues):  # what is freed on a stream is free when the stream gets there
            if stream not in self.capturing:
                self.cudaStreamSynchronize(stream)
        return Error.cudaSuccess, self.room - self.used, self.room

    def cudaMalloc(self, size):
        with self.lock:
            if not size:
                return Error.cudaErrorInvalidValue, 0
            if self.used + size > self.room:
                return Error.cudaErrorMemoryAllocation, 0
            raw = (ctypes.c_char * (size + 256))()
            pointer = -(-ctypes.addressof(raw) // 256) * 256
            ctypes.memset(pointer, 0xFF, size)  # NaN
            self.memory[pointer] = (size, raw)
            return Error.cudaSuccess, pointer

    def cudaMallocAsync(self, size, stream):
        status, pointer = self.cudaMalloc(size)
        if status == Error.cudaErrorMemoryAllocation:  # what is freed on the stream can be had
            self.cudaStreamSynchronize(stream)
            status, pointer = self.cudaMalloc(size)
        return status, pointer

    def cudaFree(self, pointer):
        for stream in self.queues:
            self.cudaStreamSynchronize(stream)
        with self.lock:
            del self.memory[pointer]
        return (Error.cudaSuccess,)

    def cudaFreeAsync(self, pointer, stream):
        self.queue(stream, lambda: self.memory.pop(pointer) and None)
        return (Error.cudaSuccess,)

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        def copy():
            if kind != 2:
                self.check(target, size)
            if kind != 1:
                self.check(source, size)
            ctypes.memmove(target, source, size)

        self.queue(stream, copy)
        return (Error.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream, mode):
        self.capturing[stream] = []
        return (Error.cudaSuccess,)

    def cudaStreamEndCapture(self, stream):
        work = self.capturing.pop(stream)
        if self.uncapturable:
            return Error.cudaErrorStreamCaptureUnsupported, None
        return Error.cudaSuccess, work

    def cudaGraphInstantiate(self, graph, flags):
        handle = next(self._handles)
        self.graphs[handle] = graph
        return Error.cudaSuccess, handle

    def cudaGraphDestroy(self, graph):
        return (Error.cudaSuccess,)

    def cudaGraphLaunch(self, handle, stream):
        for work in self.graphs[handle]:
            self.queue(stream, work)
        return (Error.cudaSuccess,)

    def cudaGraphExecDestroy(self, handle):
        del self.graphs[handle]
        return (Error.cudaSuccess,)
