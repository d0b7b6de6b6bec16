"""What TensorRT says when something fails: its functions return nothing, and tell its log why."""

from __future__ import annotations

from collections import deque
from functools import cache
from typing import Any

_KEPT = 3


@cache
def log(trt: Any) -> Any:
    """A library's log, one a process as TensorRT wants it; `errors` holds the latest."""
    serious = (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)

    class Log(trt.ILogger):  # type: ignore[misc]  # the library is loaded at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=_KEPT)

        def log(self, severity: Any, message: str) -> None:
            if severity in serious:
                self.errors.append(" ".join(message.split()))

    return Log()


def why(trt: Any) -> str:
    """The errors since the last call, in one line."""
    errors = log(trt).errors
    told = "; ".join(errors) or "TensorRT gives no reason"
    errors.clear()
    return told
