"""Arrays in a GPU's memory: what engines leave there and read there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mova_runtime.engines.cuda.dlpack import capsule
from mova_runtime.engines.cuda.memory import ALIGNMENT, Buffer, Device
from mova_runtime.engines.host import on_host
from mova_runtime.engines.protocol import Array
from mova_runtime.errors import BackendError


class DeviceArray:
    """A C-contiguous array on a device. See `mova_runtime.engines.protocol.DeviceArray`."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: Any, pointer: int, owner: object) -> None:
        """`owner` holds the memory at address `pointer` for as long as the array, or a part of it, lives."""
        self.device = device
        self.shape = shape
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.pointer = pointer
        self.owner = owner

    @classmethod
    def empty(cls, device: Device, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """An array of its own memory, with anything in it.

        Raises:
            BackendError: there is no room.
        """
        buffer = Buffer(device, math.prod(shape) * np.dtype(dtype).itemsize)
        return cls(device, shape, dtype, buffer.pointer, buffer)

    @property
    def nbytes(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * int(self.dtype.itemsize)

    def __getitem__(self, index: int) -> DeviceArray:
        """One entry of the first axis, without a copy."""
        if not self.shape or not -self.shape[0] <= index < self.shape[0]:
            raise IndexError(f"{index} of an array of shape {list(self.shape)}")
        part = DeviceArray(self.device, self.shape[1:], self.dtype, self.pointer, self.owner)
        part.pointer += index % self.shape[0] * part.nbytes
        return part

    def fill(self, value: Array | Sequence[Array]) -> DeviceArray:
        """Queue a copy of an array of this shape and dtype, or of parts to be stacked; itself."""
        if isinstance(value, Sequence):
            for index, part in enumerate(value):
                self[index].fill(part)
        elif isinstance(value, DeviceArray):
            self.device.copy(self.pointer, value.pointer, self.nbytes)
        else:
            self.device.upload(self.pointer, contiguous(value))
        return self

    def copy(self) -> DeviceArray:
        """An array of its own memory with the same in it."""
        return DeviceArray.empty(self.device, self.shape, self.dtype).fill(self)

    def numpy(self) -> np.ndarray:
        """A copy on the host, when everything queued before is done."""
        array = np.empty(self.shape, self.dtype)
        self.device.download(array, self.pointer)
        return array

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule of this memory; it is ready to be read on any stream.

        A consumer's own work on the memory must be done before it lets go of it.

        Raises:
            BufferError: a copy was asked for, or another device.
        """
        if copy or dl_device not in (None, self.device.kind):
            raise BufferError("an array on a device is shared where it is, not copied")
        if stream != -1:  # -1: the consumer does not want us to wait
            self.device.synchronise()
        return capsule(self.pointer, self.shape, self.dtype, self.device.kind, self.owner)

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's device type and number."""
        return self.device.kind


def contiguous(array: Array) -> np.ndarray:
    """An array of the host whose memory is in C order."""
    return np.ascontiguousarray(on_host(array)).reshape(array.shape)  # numpy makes a scalar one-dimensional


def form(value: Array | Sequence[Array]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an input; of parts, as if they were stacked.

    Raises:
        BackendError: the parts differ.
    """
    if not isinstance(value, Sequence):
        array = value if isinstance(value, DeviceArray) else on_host(value)
        return tuple(array.shape), array.dtype
    forms = {form(part) for part in value}
    if len(forms) != 1:
        raise BackendError(f"can't stack {len(value)} arrays of the forms {sorted(map(str, forms))}")
    shape, dtype = forms.pop()
    return (len(value), *shape), dtype


def place(device: Device, value: Array | Sequence[Array]) -> DeviceArray:
    """An input on the device: itself where it is there already and well aligned, else a copy.

    Raises:
        BackendError: parts differ in shape or dtype, or there is no room.
    """
    if isinstance(value, DeviceArray) and value.pointer % ALIGNMENT == 0:
        return value
    return DeviceArray.empty(device, *form(value)).fill(value)
