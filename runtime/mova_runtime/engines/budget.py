"""Memory sizes as people write them."""

from __future__ import annotations

import re

from mova_runtime.errors import MemoryBudgetError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_LARGEST = 2.0**63


def parse_size(size: str | int) -> int:
    """Bytes of "6GiB", "800 MB", "123456" or 123456.

    Raises:
        MemoryBudgetError: it is not a size, or not between 1 byte and 8 EiB.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(size))
    if isinstance(size, bool) or not match or match[2].upper() not in _UNITS:
        raise MemoryBudgetError(f"memory budget {size!r} is not a size such as 6GiB or 800MB")
    parsed = float(match[1]) * _UNITS[match[2].upper()]
    if not 1 <= parsed < _LARGEST:
        raise MemoryBudgetError(f"memory budget {size!r} is not a size between 1 byte and 8 EiB")
    return int(parsed)


def format_size(size: int) -> str:
    """A size with a binary unit, three digits or so."""
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
