"""The NVIDIA GPU of this machine, asked of its driver: no CUDA package is needed to know whether there is one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes

_VERSION_FILE = Path("/proc/driver/nvidia/version")

_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR, and CU_DEVICE_ATTRIBUTE_INTEGRATED."""


@dataclass(frozen=True)
class Gpu:
    """Its name, its compute capability such as "sm_87", and its driver such as "580.65.06, CUDA 13.0".

    shares_memory: it has none of its own, but the host's, as in a Jetson.
    """

    name: str
    capability: str
    driver: str
    shares_memory: bool = False


@cache
def gpu() -> Gpu | None:
    """The first GPU that CUDA shows, or None."""
    import ctypes  # noqa: PLC0415  # slow to import

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
    release = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    module = _module_version()
    return Gpu(
        name.value.decode(errors="replace"),
        f"sm_{major}{minor}",
        f"{module}, {release}" if module else release,
        bool(_attribute(driver, _INTEGRATED, device)),
    )


def _module_version() -> str:
    """The driver's own version, which can change within one of CUDA's."""
    import re  # noqa: PLC0415

    try:
        found = re.search(r"\b\d+\.\d+(\.\d+)?\b", _VERSION_FILE.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return found[0] if found else ""


def _attribute(driver: ctypes.CDLL, attribute: int, device: ctypes.c_int) -> int:
    import ctypes  # noqa: PLC0415

    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value
