"""How a bundle is opened."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

PINNED = ("base", "text", "adapter")
FEATURE_CACHE = "256MiB"
LEASE_SECONDS = 120.0


@dataclass(frozen=True)
class Options:
    """What `mova_runtime.open` takes besides the path, which says what each means."""

    backend: str = "auto"
    precision: str | None = None
    fallback: Sequence[str] | None = ()
    threads: int | None = None
    memory_budget: str | int | None = None
    device_memory_budget: str | int | None = None
    feature_cache: str | int = FEATURE_CACHE
    pinned: Collection[str] = PINNED
    lease_timeout: float | None = LEASE_SECONDS
    prefetch: bool = True
    speculate: bool = False
    experts_at_once: bool = False
    keep_compiled: bool = False
