"""What a library's error becomes: an error of ours in one line, that says so where memory ran out."""

from __future__ import annotations

from mova_runtime.errors import BackendError, OutOfMemoryError

_EXHAUSTED = (
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "outofmemory",
    "failed to allocate memory",
    "cannot allocate memory",
    "can't allocate",
    "cudaerrormemoryallocation",
    "cublas_status_alloc_failed",
)
"""What C++, ONNX Runtime, OpenVINO, Linux, TensorRT and CUDA say when memory ran out."""

_LONGEST = 300


def failure(where: str, error: BaseException) -> BackendError:
    """What to raise for an error: OutOfMemoryError where memory ran out, else BackendError.

    Args:
        where: what was being done, such as "ort: can't load 'sam'"; the message begins with it.
        error: what happened; of its text the first lines are kept, as one.
    """
    text = " ".join(str(error).split())[:_LONGEST]
    if ran_out(error):
        return OutOfMemoryError(f"{where}: {text}" if text else f"{where}: out of memory")
    return BackendError(f"{where}: {text or type(error).__name__}")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    told = str(error).lower()
    return isinstance(error, MemoryError | OutOfMemoryError) or any(text in told for text in _EXHAUSTED)
