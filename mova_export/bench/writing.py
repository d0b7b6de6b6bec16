"""Files that a run leaves: whole or not at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any

from mova_export.errors import BenchError


def check_writable(file: Path) -> None:
    """See, before an hour of measuring, that a file can be written.

    Raises:
        BenchError: it can't be, or is no file.
    """
    if file.exists() and not file.is_file():
        raise BenchError(f"{file}: is no file")
    partial = _partial(file)
    try:
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise BenchError(f"{file}: can't be written ({error.strerror})") from None


def write(file: Path, text: str) -> None:
    """Write a file whole or not at all; a link stays one.

    Raises:
        BenchError: it can't be written.
    """
    file = file.resolve()
    partial = _partial(file)
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise BenchError(f"{file}: can't be written ({error.strerror})") from None


def _partial(file: Path) -> Path:
    return file.with_name(f".{file.name}.{os.getpid()}")


def write_json(file: Path, results: dict[str, Any]) -> None:
    """Write results. Raises like `write`."""
    write(file, json.dumps(finite(results), indent=1, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """The same with null for what JSON has no number for: an engine that computes NaN is that far from torch."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
