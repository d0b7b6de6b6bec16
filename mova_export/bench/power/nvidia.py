"""NVIDIA's driver, through nvidia-ml-py (module pynvml). Written from NVML's reference; it has met no real GPU yet."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any


class NvidiaSource:
    """The GPU that is CUDA's first.

    A whole GPU is measured: of one that is shared, or sliced, also what others draw.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    def joules(self) -> float | None:
        """Since the driver was loaded, by a counter that moves on some ten times a second; from Volta on."""
        millijoules = self._ask(self._nvml.nvmlDeviceGetTotalEnergyConsumption)
        return None if millijoules is None else millijoules / 1e3

    def watts(self) -> float | None:
        """Of the whole board; averaged over a second on most GPUs since Ampere."""
        milliwatts = self._ask(self._nvml.nvmlDeviceGetPowerUsage)
        return None if milliwatts is None else milliwatts / 1e3

    def clocks(self) -> dict[str, float]:
        """Of the multiprocessors and the memory."""
        kinds = {"sm": self._nvml.NVML_CLOCK_SM, "memory": self._nvml.NVML_CLOCK_MEM}
        found = {name: self._ask(self._nvml.nvmlDeviceGetClockInfo, kind) for name, kind in kinds.items()}
        return {name: float(value) for name, value in found.items() if value is not None}

    def _ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """What NVML answers, None where this GPU does not tell that."""
        try:
            return call(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None


def nvidia_source() -> NvidiaSource | None:
    """CUDA's first GPU; None without nvidia-ml-py, a driver or a GPU, or where it tells neither energy nor power."""
    try:
        import pynvml  # noqa: PLC0415  # an optional package
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        source = NvidiaSource(pynvml, _handle(pynvml))
    except pynvml.NVMLError:
        return None
    return None if source.joules() is None and source.watts() is None else source


def _handle(nvml: Any) -> Any:
    """NVML counts in the order of the bus and knows no CUDA_VISIBLE_DEVICES, so CUDA is asked where its first GPU is.

    Raises:
        NVMLError: there is no GPU.
    """
    bus = _bus_of_the_first()
    if bus:
        try:
            return nvml.nvmlDeviceGetHandleByPciBusId(bus)
        except nvml.NVMLError:  # an integrated GPU is on no bus
            pass
    return nvml.nvmlDeviceGetHandleByIndex(0)


def _bus_of_the_first() -> bytes | None:
    """Where CUDA's first GPU is, such as b"0000:65:00.0"."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, bus = ctypes.c_int(), ctypes.create_string_buffer(32)
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    return None if driver.cuDeviceGetPCIBusId(bus, len(bus), device) else bus.value
