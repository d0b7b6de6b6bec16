"""Amounts of memory: of the host and of a GPU, what an engine needs, what it may take, and how people write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mova_runtime.errors import MemoryBudgetError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_LARGEST = 2.0**63


@dataclass(frozen=True)
class Memory:
    """Bytes of the host's memory and of a GPU's."""

    host: int = 0
    device: int = 0

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.host + other.host, self.device + other.device)

    def __sub__(self, other: Memory) -> Memory:
        return Memory(self.host - other.host, self.device - other.device)

    def __mul__(self, times: int) -> Memory:
        return Memory(self.host * times, self.device * times)

    def most(self, other: Memory) -> Memory:
        """The larger of either kind."""
        return Memory(max(self.host, other.host), max(self.device, other.device))

    def within(self, other: Memory) -> bool:
        """Whether it is no more, of either kind."""
        return self.host <= other.host and self.device <= other.device

    @property
    def total(self) -> int:
        """Both kinds together."""
        return self.host + self.device

    def __str__(self) -> str:
        return _both(format_size(self.host) if self.host or not self.device else "", self.device or None)


@dataclass(frozen=True)
class Limits:
    """Bounds in bytes; None is no bound.

    shared: the GPU uses the host's memory, so `host` bounds the sum.
    """

    host: int | None = None
    device: int | None = None
    shared: bool = False

    def hold(self, used: Memory) -> bool:
        """Whether that much may be used."""
        return self.excess(used) == Memory()

    def excess(self, used: Memory) -> Memory:
        """How far that much is beyond either bound."""
        bounded = self._bounded(used)
        return Memory(
            0 if self.host is None else max(0, bounded.host - self.host),
            0 if self.device is None else max(0, bounded.device - self.device),
        )

    def cover(self, one: Memory, other: Memory) -> Memory:
        """The least that is, by what is bounded, as much as either of two."""
        most = self._bounded(one).most(self._bounded(other))
        return Memory(most.host - most.device, most.device) if self.shared else most

    def _bounded(self, used: Memory) -> Memory:
        """What is held against the two bounds."""
        return Memory(used.total, used.device) if self.shared else used

    def __str__(self) -> str:
        host = "" if self.host is None else format_size(self.host)
        if host and self.shared:
            host += " shared with the GPU"
        return _both(host, self.device) or "unlimited"


@dataclass(frozen=True)
class Need:
    """The memory an engine needs.

    resident: while it is loaded; working: more for each run of one image, or for one answer; loading: at most while it
    loads.
    """

    resident: Memory
    working: Memory = Memory()
    loading: Memory = Memory()

    @property
    def peak(self) -> Memory:
        """At most until it was loaded and run for the first time."""
        return self.loading.most(self.resident + self.working)


def parse_size(size: str | int, what: str = "memory budget") -> int:
    """Bytes of "6GiB", "800 MB", "123456" or 123456; `what` it is, for the message.

    Raises:
        MemoryBudgetError: it is not a size, or not between 1 byte and 8 EiB.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(size))
    if isinstance(size, bool) or not match or match[2].upper() not in _UNITS:
        raise MemoryBudgetError(f"{what} {size!r} is not a size such as 6GiB or 800MB")
    parsed = float(match[1]) * _UNITS[match[2].upper()]
    if not 1 <= parsed < _LARGEST:
        raise MemoryBudgetError(f"{what} {size!r} is not a size between 1 byte and 8 EiB")
    return int(parsed)


def format_size(size: int) -> str:
    """A size with a binary unit, three digits or so."""
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def _both(host: str, device: int | None) -> str:
    parts = [host] if host else []
    return " and ".join([*parts, f"{format_size(device)} on the GPU"] if device is not None else parts)
