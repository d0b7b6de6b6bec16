"""Memory that was freed goes back to the system."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def release() -> None:
    """Let the C library give back what was freed: by itself it keeps most of it for the next allocation.

    Called after an engine was closed. Does nothing where the library can't: musl and macOS give back by themselves.
    """
    _trim()(0)


@cache
def _trim() -> Callable[[int], Any]:
    import ctypes  # noqa: PLC0415  # slow to import

    try:
        trim: Callable[[int], Any] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda _: None
    return trim
