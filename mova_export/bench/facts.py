"""What a number depends on besides the code: machine, versions, commit, the bundle it was measured on."""

from __future__ import annotations

import ctypes
import datetime
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mova_runtime.engines.installed import version
from mova_runtime.engines.nvidia import gpu

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle

PACKAGES = ("torch", "onnxruntime", "openvino", "tensorrt-rtx-cu13", "transformers", "numpy")
"""Whose versions belong beside what a script of `benchmarks/` measures."""

_OF_A_BUNDLE = (
    *("mova-export", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx-cu13"),
    *("cuda-core", "cuda-bindings", "nvmath-python", "torch", "transformers"),
)
_ROOT = Path(__file__).resolve().parents[2]
_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    if _CPUINFO.is_file() and (found := re.search(r"model name\s*:\s*(.+)", _CPUINFO.read_text(encoding="utf-8"))):
        return found[1].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def short_name() -> str:
    """A file name's worth of the machine, such as amd-epyc-2-cores."""
    words = re.sub(r"\((r|tm)\)|\bcpu\b|@.*", " ", cpu_model().lower())
    return "-".join([*re.findall(r"[a-z0-9.]+", words)[:4], str(cores()), "cores"])


def load() -> float:
    """Processes that wanted a core, averaged over a minute; well above `cores()`, times mean little."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def process_memory(field: str) -> float:
    """MiB of this process: "VmRSS" now, "VmHWM" at its peak."""
    # Not getrusage: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(rf"{field}:\s*(\d+) kB", status)
    assert found, f"Linux has {field}"
    return int(found[1]) / 1024


def available_memory() -> int:
    """Bytes that processes could take now without swapping; 0 where the system does not tell."""
    return _meminfo("MemAvailable")


def commit() -> str:
    """The commit's hash, with -dirty where sources differ from it; "unknown" outside a repository."""
    if not (_ROOT / ".git").exists():  # installed, perhaps somewhere inside another repository
        return "unknown"
    try:
        found = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "mova_export", "runtime", "kernels")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{found}-dirty" if changed else found


def facts(threads: int) -> dict[str, Any]:
    """Everything that belongs beside a measurement made with so many threads."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": _host(),
        "load_at_start": load(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) or "not installed" for name in PACKAGES},
        },
        "commit": commit(),
        "threads": threads,
        "precision": "float32",
    }


def machine() -> dict[str, Any]:
    """The machine: `cpu`, `cores`, `memory_bytes`, `system`, and `gpu`, null where there is none."""
    return {**_host(), "memory_bytes": _meminfo("MemTotal"), "gpu": _gpu()}


def versions() -> dict[str, str]:
    """Of Python, and of what is installed of the packages that a bundle's figures depend on."""
    found = {name: version(name) for name in _OF_A_BUNDLE}
    return {"python": platform.python_version(), **{name: one for name, one in found.items() if one}}


def describe(bundle: Bundle) -> dict[str, Any]:
    """Which bundle: `name`, `sha256` of its manifest, `origin`, `components` and `parameters`, how many of each."""
    from mova_runtime.bundle.folder import MANIFEST, sha256_of  # noqa: PLC0415  # scripts have no bundle

    components = bundle.manifest.components
    return {
        "name": bundle.root.resolve().name,
        "sha256": sha256_of(bundle.root / MANIFEST),
        "origin": bundle.manifest.provenance.model_type,
        "components": len(components),
        "parameters": sum(component.parameters for component in components.values()),
    }


def _host() -> dict[str, Any]:
    return {"cpu": cpu_model(), "cores": cores(), "system": f"{platform.system()} {platform.machine()}"}


def _gpu() -> dict[str, Any] | None:
    found = gpu()
    if not found:
        return None
    named = {"name": found.name, "capability": found.capability, "driver": found.driver}
    return {**named, "memory_bytes": _gpu_memory()}


def _gpu_memory() -> int | None:
    """Bytes of the first GPU's memory; None where the driver does not tell."""
    size, device = ctypes.c_size_t(), ctypes.c_int()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        failed = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0)
        failed = failed or driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    except (OSError, AttributeError):
        return None
    return None if failed else size.value


def _meminfo(field: str) -> int:
    try:
        found = re.search(rf"^{field}:\s*(\d+) kB", _MEMINFO.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=_ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()
