"""Which backend runs a bundle."""

from __future__ import annotations

from mova_runtime.engines import ort
from mova_runtime.engines.protocol import Backend
from mova_runtime.errors import BackendError

NAMES = ("ort",)


def choose(name: str, threads: int | None = None) -> Backend:
    """The backend called `name`; "auto" takes the best that is installed.

    Raises:
        BackendError: unknown, or not installed, or `threads` is no number of threads.
    """
    if name not in ("auto", *NAMES):
        raise BackendError(f"unknown backend {name!r}; one of auto, {', '.join(NAMES)}")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise BackendError(f"threads must be a positive whole number, not {threads!r}")
    if not ort.is_installed():
        raise BackendError("no engine backend is installed; pip install 'mova-export[cpu]' brings ONNX Runtime")
    return ort.OrtBackend(threads)
