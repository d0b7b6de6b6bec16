"""The NVIDIA GPU of this machine, asked of its driver: no CUDA package is needed to know whether there is one."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


@dataclass(frozen=True)
class Gpu:
    """Its name, its compute capability such as "sm_87", and the CUDA version of its driver such as "13.0"."""

    name: str
    capability: str
    driver: str


@cache
def gpu() -> Gpu | None:
    """The first GPU that CUDA shows, or None."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version, device = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDriverGetVersion(ctypes.byref(version)):
        return None
    if driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), device)
    major, minor = (_attribute(driver, attribute, device) for attribute in (_MAJOR, _MINOR))
    release = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode(errors="replace"), f"sm_{major}{minor}", release)


def _attribute(driver: ctypes.CDLL, attribute: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value
