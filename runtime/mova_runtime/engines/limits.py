"""The bounds on memory that a caller asked for."""

from __future__ import annotations

import re

from mova_runtime.engines.memory import Limits, parse_size
from mova_runtime.engines.nvidia import gpu

_NOTHING = re.compile(r"\s*0+(\.0+)?\s*([kmg]?i?b)?\s*", re.IGNORECASE)
CACHE_SHARE = 4
"""Features take at most this part of a budget: one in so many."""


def limits(host: str | int | None, device: str | int | None) -> Limits:
    """Bounds of the host's and of the GPU's memory; None is no bound.

    Raises:
        MemoryBudgetError: one is not a size.
    """
    shared = False
    if host is not None and (found := gpu()):
        shared = found.shares_memory
    return Limits(
        host=None if host is None else parse_size(host),
        device=None if device is None else parse_size(device),
        shared=shared,
    )


def cache_bound(asked: str | int, bounds: Limits) -> int:
    """Bytes that cached features may take: what was asked for, and no more than a part of a bound on memory.

    Raises:
        MemoryBudgetError: it is neither a size nor 0, which is no cache.
    """
    if not isinstance(asked, bool) and _NOTHING.fullmatch(str(asked)):
        return 0
    shares = [bound // CACHE_SHARE for bound in (bounds.host, bounds.device) if bound is not None]
    return min([parse_size(asked, "feature cache"), *shares])
