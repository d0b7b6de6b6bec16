"""What a pool has done and has in memory."""

from __future__ import annotations

from dataclasses import dataclass

from mova_runtime.engines.memory import Limits, Memory, Need


@dataclass(frozen=True)
class EngineUse:
    """A loaded engine. users: leases that have it now; wanted: some request has announced it."""

    name: str
    need: Need
    users: int
    pinned: bool
    wanted: bool


@dataclass(frozen=True)
class PoolTotals:
    """Since the pool was made, and now.

    loads: that succeeded, load_seconds in all, prefetched: how many of them nobody waited for when they began;
    evictions: engines that went to make room, evicted_bytes of them; failures: loads that failed, and engines that
    failed in a run; leases: that were had; waits: how many of them had to wait for room or gave up on it, wait_seconds
    in all; used: memory now, peak: the most so far.
    """

    loads: int
    load_seconds: float
    prefetched: int
    evictions: int
    evicted_bytes: int
    failures: int
    waits: int
    wait_seconds: float
    leases: int
    used: Memory
    peak: Memory
    limits: Limits
    engines: tuple[EngineUse, ...]


@dataclass
class Counts:
    """The part of `PoolTotals` that is counted."""

    loads: int = 0
    load_seconds: float = 0.0
    prefetched: int = 0
    evictions: int = 0
    evicted_bytes: int = 0
    failures: int = 0
    waits: int = 0
    wait_seconds: float = 0.0
    leases: int = 0
