"""Which libraries are installed, found out without importing them: some take longer to import than a bundle to open."""

from __future__ import annotations

import importlib.util
from functools import cache


def has_module(name: str) -> bool:
    """Whether a module can be imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a package that is half there
        return False


@cache
def version(package: str) -> str | None:
    """The version of an installed distribution, or None."""
    from importlib import metadata  # noqa: PLC0415  # slow to import, and not always asked

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
