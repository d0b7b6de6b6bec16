"""Backends by name; each is imported when it is first needed."""

from __future__ import annotations

from mova_runtime.engines.choice import Choice
from mova_runtime.engines.protocol import Backend
from mova_runtime.errors import BackendError

MAX_THREADS = 256
"""Of one engine. Thousands would be granted, and stop the machine."""


def check_threads(threads: int | None) -> None:
    """See that a number of threads is one.

    Raises:
        BackendError: it is not, or not from 1 to MAX_THREADS.
    """
    if threads is not None and (type(threads) is not int or not 1 <= threads <= MAX_THREADS):
        raise BackendError(f"threads must be a whole number from 1 to {MAX_THREADS}, not {threads!r}")


def make(choice: Choice, threads: int | None = None, *, keep_compiled: bool = False) -> Backend:
    """The backend of a choice.

    Args:
        choice: which, and in which precision.
        threads: of each engine; None is one a physical core.
        keep_compiled: OpenVINO keeps what it compiled on disk, as large as the weights or nearly, and loads that the
            next time, in a third of the time.

    Raises:
        BackendError: its library is installed but can't be imported, or the device does not run the precision.
    """
    if choice.backend in ("ort", "ort-cuda"):
        from mova_runtime.engines.ort import OrtBackend  # noqa: PLC0415

        return OrtBackend("cpu" if choice.backend == "ort" else "cuda", choice.precision, threads)
    if choice.backend == "openvino":
        from mova_runtime.engines.ov import OpenVinoBackend  # noqa: PLC0415

        return OpenVinoBackend(choice.precision, threads, keep_compiled=keep_compiled)
    if choice.backend == "cuda":
        from mova_runtime.engines.cuda_adapter.backend import CudaAdapterBackend  # noqa: PLC0415

        return CudaAdapterBackend(choice.precision)
    from mova_runtime.engines.trt.backend import TensorRtBackend  # noqa: PLC0415

    return TensorRtBackend("tensorrt" if choice.backend == "tensorrt" else "tensorrt-rtx", choice.precision)
