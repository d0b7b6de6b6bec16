"""Reading results of which anything may be missing, null or of another type than it should be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]


def at(value: Any, *keys: str) -> Any:
    """What lies under keys, one within the other; None where there is nothing."""
    for key in keys:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def number(value: Any, *keys: str) -> float | None:
    """A finite number under keys."""
    found = at(value, *keys)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    try:
        return float(found) if math.isfinite(found) else None
    except OverflowError:
        return None


def text(value: Any, *keys: str) -> str | None:
    """What is under keys as text; None where there is nothing."""
    found = at(value, *keys)
    if found is None or isinstance(found, Mapping) or (isinstance(found, Sequence) and not isinstance(found, str)):
        return None
    return str(found).strip() or None


def texts(value: Any, *keys: str) -> list[str]:
    """A list of texts under keys."""
    found = at(value, *keys)
    if isinstance(found, str) or not isinstance(found, Sequence):
        return []
    return [str(item) for item in found if item is not None]


def entries(value: Any, *keys: str) -> list[Results]:
    """A list of records under keys."""
    found = at(value, *keys)
    if isinstance(found, str) or not isinstance(found, Sequence):
        return []
    return [item for item in found if isinstance(item, Mapping)]


def named(value: Any, *keys: str) -> dict[str, Any]:
    """What lies under keys by name."""
    found = at(value, *keys)
    return {str(name): item for name, item in found.items()} if isinstance(found, Mapping) else {}
