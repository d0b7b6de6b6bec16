"""Which backend runs a bundle."""

from __future__ import annotations

from mova_runtime.engines import ort
from mova_runtime.engines.protocol import Backend
from mova_runtime.errors import BackendError

NAMES = ("ort",)

MAX_THREADS = 256
"""Of one engine. Thousands would be granted, and stop the machine."""


def choose(name: str, threads: int | None = None) -> Backend:
    """The backend called `name`; "auto" takes the best that is installed.

    Raises:
        BackendError: unknown, or not installed, or `threads` is no number of threads.
    """
    if name not in ("auto", *NAMES):
        raise BackendError(f"unknown backend {name!r}; one of auto, {', '.join(NAMES)}")
    if threads is not None and (type(threads) is not int or not 1 <= threads <= MAX_THREADS):
        raise BackendError(f"threads must be a whole number from 1 to {MAX_THREADS}, not {threads!r}")
    if not ort.is_installed():
        raise BackendError("no engine backend is installed; pip install onnxruntime")
    return ort.OrtBackend(threads)
