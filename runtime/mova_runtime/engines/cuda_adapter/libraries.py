"""What the adapter needs besides CUDA's runtime: cuda.core to launch kernels, cuBLAS through nvmath to multiply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mova_runtime.engines import installed
from mova_runtime.engines.nvidia import gpu
from mova_runtime.errors import BackendError

EXTRA = "(extra `cuda`)"

_CUBLAS = {11: "nvidia-cublas-cu11", 12: "nvidia-cublas-cu12"}
"""Its package by the driver's CUDA; since 13 names say no version."""


@dataclass(frozen=True)
class Libraries:
    """cuda.core, cuda.bindings.driver and nvmath.bindings.cublas, as imported."""

    core: Any
    driver: Any
    cublas: Any


def load() -> Libraries:
    """Import them.

    Raises:
        BackendError: there is no GPU, or one is not installed or can't be imported.
    """
    if not gpu():  # asked first: without a driver, cuda.core can hang
        raise BackendError("backend cuda: no NVIDIA GPU, or no driver for it")
    try:
        import cuda.core as core  # noqa: PLC0415  # absence is told as a backend's error
        from cuda.bindings import driver  # noqa: PLC0415

        core.ObjectCode, core.launch  # noqa: B018  # before 1.0 they were elsewhere
    except (ImportError, AttributeError, RuntimeError) as error:
        raise BackendError(
            f"backend cuda: cuda.core can't be used ({_line(error)}); pip install 'cuda-core>=1.0' {EXTRA}"
        ) from None
    try:
        from nvmath.bindings import cublas  # noqa: PLC0415
    except (ImportError, RuntimeError, OSError) as error:
        raise BackendError(
            f"backend cuda: nvmath can't be imported ({_line(error)}); pip install nvmath-python {EXTRA}"
        ) from None
    return Libraries(core, driver, cublas)


def versions() -> str:
    """What results depend on besides kernels and weights, found out without importing: versions as installed."""
    packages = ("cuda-core", "nvmath-python", *dict.fromkeys(("nvidia-cublas", *_CUBLAS.values())))
    found = {package: installed.version(package) for package in packages}
    return ", ".join(f"{package} {version}" for package, version in found.items() if version)


def cublas_package() -> str:
    """The package that has cuBLAS for this machine's driver."""
    return _CUBLAS.get(driver_cuda()[0], "nvidia-cublas")


def driver_cuda() -> tuple[int, int]:
    """The CUDA version of this machine's driver, such as (12, 8); (0, 0) without one."""
    found = gpu()
    if not found:
        return 0, 0
    major, _, minor = found.driver.rpartition("CUDA ")[2].partition(".")
    return int(major), int(minor)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
