"""Compiled kernels on the GPU: loaded by cuda.core, launched by name."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mova_runtime.bundle.kernels import Kernel
from mova_runtime.engines.cuda_adapter.libraries import Libraries
from mova_runtime.errors import BackendError

PLAIN_SHARED = 48 << 10
"""Bytes of dynamic shared memory that a kernel may have without being allowed more."""

_SCALARS: dict[str, Any] = {"i32": ctypes.c_int32, "i64": ctypes.c_int64, "fp32": ctypes.c_float}
"""By Triton's name of a type. Pointers go as whole numbers, which cuda.core takes for addresses."""

_BOUNDS = {"i32": 1 << 31, "i64": 1 << 63}

_REASONS = {
    "NO_BINARY_FOR_GPU": "it was compiled for another GPU, or this driver is too old for it",
    "UNSUPPORTED_PTX_VERSION": "this driver is too old for it",
    "INVALID_IMAGE": "it is no machine code that this driver knows: too new, or damaged",
    "INVALID_SOURCE": "it is no machine code that this driver knows: too new, or damaged",
    "NOT_FOUND": "it has no such entry",
}
"""By CUDA's name for an error, what it says of a cubin."""


@dataclass(frozen=True)
class _Loaded:
    record: Kernel
    kernel: Any
    code: Any
    """What keeps it loaded."""


class Kernels:
    """An adapter's kernels, loaded."""

    def __init__(self, libraries: Libraries, records: Mapping[str, Kernel], files: Mapping[str, Path]) -> None:
        """Load cubins whose bytes are known to be what their records say; CUDA's context is this thread's.

        Args:
            libraries: to load them with.
            records: by variant.
            files: where their cubins are, by variant.

        Raises:
            BackendError: CUDA refuses one, or one wants memory that it isn't given.
        """
        self._core = libraries.core
        self._loaded = {name: _load(libraries, name, record, files[name]) for name, record in records.items()}

    def constant(self, kernel: str, name: str) -> int:
        """See `Work.constant`."""
        constants = self._known(kernel).record.constants
        if name not in constants:
            raise BackendError(f"kernel {kernel!r} does not say its {name}: it is of another version")
        return constants[name]

    def stream(self, stream: Any) -> Any:
        """One of CUDA's streams as cuda.core has them."""
        return self._core.Stream.from_handle(int(stream))

    def launch(self, stream: Any, kernel: str, grid: tuple[int, ...], arguments: Mapping[str, int | float]) -> None:
        """Queue a kernel on one of cuda.core's streams. See `Work.launch`."""
        loaded = self._known(kernel)
        packed = pack(kernel, loaded.record, arguments)
        record = loaded.record
        config = self._core.LaunchConfig(grid=grid, block=32 * record.warps, shmem_size=record.shared)
        try:
            self._core.launch(stream, config, loaded.kernel, *packed)
        except Exception as error:  # its exceptions share no base but Exception
            raise BackendError(f"kernel {kernel!r} can't be launched: {told(error)}") from error

    def _known(self, kernel: str) -> _Loaded:
        try:
            return self._loaded[kernel]
        except KeyError:
            raise BackendError(f"the bundle has no kernel {kernel!r}") from None


def pack(name: str, record: Kernel, arguments: Mapping[str, int | float]) -> list[Any]:
    """Arguments in a kernel's order, each of the very type that it takes; then zeros for its hidden pointers.

    Raises:
        BackendError: it takes others, or a number does not fit.
    """
    if {*arguments} != {argument.name for argument in record.arguments}:
        theirs = ", ".join(argument.name for argument in record.arguments)
        raise BackendError(f"kernel {name!r} takes {theirs}, not {', '.join(arguments)}: it is of another version")
    packed: list[Any] = []
    for argument in record.arguments:
        value, bound = arguments[argument.name], _BOUNDS.get(argument.type)
        if bound and not -bound <= value < bound:
            raise BackendError(f"kernel {name!r}: {argument.name} can't be {value}: the batch is too large")
        packed.append(int(value) if argument.type.startswith("*") else _SCALARS[argument.type](value))
    return packed + [0] * len(record.scratch)


def told(error: Exception) -> str:
    """CUDA's error in a line, its first sentence."""
    return " ".join(str(error).split()).partition(". ")[0] or type(error).__name__


def _load(libraries: Libraries, name: str, record: Kernel, file: Path) -> _Loaded:
    """Load one, and allow it the shared memory that it was compiled for."""
    if wanting := {pointer: size for pointer, size in record.scratch.items() if size}:
        raise BackendError(f"kernel {name!r} wants scratch memory, which it isn't given: {wanting}")
    if unknown := [argument.type for argument in record.arguments if not _known_type(argument.type)]:
        raise BackendError(f"kernel {name!r} takes arguments of unknown types: {', '.join(unknown)}")
    try:
        code = libraries.core.ObjectCode.from_cubin(file.read_bytes(), name=name)
        kernel = code.get_kernel(record.symbol)
        if record.shared > PLAIN_SHARED:
            _allow(libraries.driver, kernel.handle, record.shared)
    except Exception as error:  # its exceptions share no base but Exception
        reason = next((reason for word, reason in _REASONS.items() if word in str(error)), "CUDA refuses it")
        raise BackendError(f"kernel {name!r} can't be loaded: {reason} ({told(error)})") from error
    return _Loaded(record, kernel, code)


def _allow(driver: Any, kernel: Any, shared: int) -> None:
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    status, device = driver.cuDeviceGet(0)
    if status == driver.CUresult.CUDA_SUCCESS:
        (status,) = driver.cuKernelSetAttribute(attribute, shared, kernel, device)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise BackendError(f"{status.name}: {shared} bytes of shared memory are not to be had")


def _known_type(name: str) -> bool:
    return name.startswith("*") or name in _SCALARS
