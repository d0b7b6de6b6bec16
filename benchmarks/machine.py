"""What a number depends on besides the code: machine, versions, commit."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "onnxruntime", "openvino", "tensorrt-rtx-cu13", "transformers", "numpy")
_ROOT = Path(__file__).resolve().parent.parent
_CPUINFO = Path("/proc/cpuinfo")


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
    return int(re.search(rf"{field}:\s*(\d+) kB", status)[1]) / 1024  # type: ignore[index]  # Linux has both


def commit() -> str:
    """The commit's hash, with -dirty where sources differ from it; "unknown" outside a repository."""
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
        "machine": {
            "cpu": cpu_model(),
            "cores": cores(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "load_at_start": load(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "commit": commit(),
        "threads": threads,
        "precision": "float32",
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=_ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()
