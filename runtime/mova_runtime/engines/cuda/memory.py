"""A GPU's memory and the one stream that works on it. Every call into CUDA is checked."""

from __future__ import annotations

import threading
import weakref
from functools import cache
from typing import Any

import numpy as np

from mova_runtime.engines.nvidia import gpu
from mova_runtime.errors import BackendError, OutOfMemoryError

ALIGNMENT = 256
"""Bytes. What CUDA allocates begins at a multiple, and TensorRT asks for it."""

_making = threading.Lock()


class Buffer:
    """Device memory. It is freed when nothing refers to it any more, after the work that the stream already has."""

    def __init__(self, device: Device, size: int) -> None:
        """Allocate `size` bytes; see `Device.allocate`."""
        self.bytes = size
        self.pointer = device.allocate(size)
        weakref.finalize(self, device.free, self.pointer).atexit = False  # the process gives everything back


class Device:
    """CUDA's first device: its memory, and a stream.

    Everything is queued on this one stream, so work is done in the order in which it was asked for: memory that is
    freed, or filled anew, is first let go by whatever reads it. Several threads may call at once.
    """

    kind = (2, 0)
    """kDLCUDA and the device's number, as DLPack has them."""

    def __init__(self, cudart: Any, keep_freed: Any = None) -> None:
        """`cudart` is cuda.bindings.runtime.

        Args:
            cudart: the calls.
            keep_freed: bytes of freed memory, as CUDA's integer, that stay allocated for what is needed next; None
                leaves it at CUDA's default: none of it.

        Raises:
            BackendError: CUDA does not start.
        """
        self.cudart = cudart
        self._read: list[np.ndarray] = []
        self.stream: Any = self.call("cudaStreamCreateWithFlags", cudart.cudaStreamNonBlocking)
        self.capturing: Any = self.call("cudaStreamCreateWithFlags", cudart.cudaStreamNonBlocking)
        """A stream on which nothing is ever done: what is queued on it while it captures must be meant for a graph."""
        pools = cudart.cudaDeviceAttr.cudaDevAttrMemoryPoolsSupported
        self._pool: Any = None
        if self.call("cudaDeviceGetAttribute", pools, 0):  # a Jetson may have none
            self._pool = self.call("cudaDeviceGetDefaultMemPool", 0)
            if keep_freed is not None:
                threshold = cudart.cudaMemPoolAttr.cudaMemPoolAttrReleaseThreshold
                self.call("cudaMemPoolSetAttribute", self._pool, threshold, keep_freed)

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of CUDA's runtime; what it returns first besides its status.

        Raises:
            OutOfMemoryError: there is no room.
            BackendError: another error. Both have CUDA's name for it.
        """
        results = self._call(name, *arguments)
        return results[0] if results else None

    def _call(self, name: str, *arguments: Any) -> list[Any]:
        results: list[Any]
        status, *results = getattr(self.cudart, name)(*arguments)
        if status == self.cudart.cudaError_t.cudaSuccess:
            return results
        _, error = self.cudart.cudaGetErrorName(status)
        kind = OutOfMemoryError if status == self.cudart.cudaError_t.cudaErrorMemoryAllocation else BackendError
        raise kind(f"CUDA: {name} failed: {error.decode() if isinstance(error, bytes) else error}")

    def make_current(self) -> None:
        """Let this thread call CUDA's driver too, and libraries that do: the runtime's own calls need nothing."""
        self.call("cudaSetDevice", self.kind[1])

    def allocate(self, size: int) -> int:
        """The address of so many bytes, and of at least one: an empty array needs an address too.

        Raises:
            OutOfMemoryError: there is no room.
        """
        wanted = max(size, 1)
        try:
            if self._pool is not None:
                return int(self.call("cudaMallocAsync", wanted, self.stream))
            return int(self.call("cudaMalloc", wanted))
        except BackendError as error:
            raise type(error)(f"{error} ({wanted} bytes asked for)") from None

    def free(self, pointer: int) -> None:
        """Free what was allocated."""
        # Nobody could act on a failure: the memory is not used any more, and an earlier error has been told.
        if self._pool is not None:
            self.cudart.cudaFreeAsync(pointer, self.stream)
        else:
            self.cudart.cudaFree(pointer)

    def trim(self) -> None:
        """Give freed memory back to the system; else it is kept for what is needed next."""
        if self._pool is not None:
            self.synchronise()
            self.call("cudaMemPoolTrimTo", self._pool, 0)

    def used(self) -> int:
        """Bytes in use on the device, by anybody; what was freed and not given back counts too. See `trim`."""
        free, total = self._call("cudaMemGetInfo")
        return int(total) - int(free)

    def upload(self, pointer: int, array: np.ndarray) -> None:
        """Queue a copy of an array of the host, C-contiguous, to an address; it may change after `synchronise`."""
        self._copy(pointer, array.ctypes.data, array.nbytes, "cudaMemcpyHostToDevice")
        self._read.append(array)  # after the copy was queued: whoever clears the list now has waited for the copy

    def download(self, array: np.ndarray, pointer: int) -> None:
        """Fill an array of the host, C-contiguous, from an address; done when this returns."""
        self._copy(array.ctypes.data, pointer, array.nbytes, "cudaMemcpyDeviceToHost")
        self.synchronise()

    def copy(self, target: int, source: int, size: int) -> None:
        """Queue a copy of bytes from address to address."""
        self._copy(target, source, size, "cudaMemcpyDeviceToDevice")

    def synchronise(self) -> None:
        """Wait until all that was queued is done.

        Raises:
            BackendError: some of it failed.
        """
        done, self._read = self._read, []
        self.call("cudaStreamSynchronize", self.stream)
        del done

    def _copy(self, target: int, source: int, size: int, kind: str) -> None:
        if size:
            self.call("cudaMemcpyAsync", target, source, size, getattr(self.cudart.cudaMemcpyKind, kind), self.stream)


def device() -> Device:
    """The device of this process.

    Raises:
        BackendError: there is no GPU or driver, cuda-bindings is not installed, or CUDA does not start.
    """
    with _making:
        return _device()


@cache
def _device() -> Device:
    here = gpu()
    if not here:  # asked first: without a driver, libraries of CUDA can hang
        raise BackendError("CUDA: no NVIDIA GPU, or no driver for it")
    try:
        from cuda.bindings import driver, runtime  # noqa: PLC0415  # its absence is told as a backend's error
    except ImportError as error:
        raise BackendError(
            f"CUDA: cuda-bindings can't be imported ({error}); pip install cuda-bindings, of the driver's major version"
        ) from None
    try:
        return Device(runtime, keep_freed=driver.cuuint64_t(2**64 - 1))
    except BackendError as error:
        if "InsufficientDriver" not in str(error):
            raise
        raise BackendError(f"{error}: install the cuda-bindings of this driver's CUDA, {here.driver}") from None
