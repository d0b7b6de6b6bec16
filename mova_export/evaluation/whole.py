"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from mova_export.evaluation.errors import EvaluationError


def partial_of(path: Path) -> Path:
    """Where a file is written before it takes its place; a killed process may leave it."""
    return path.with_name(f".{path.name}.partial")


def write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file and put it in its place when its bytes are on the disk; it keeps its permissions.

    Raises:
        EvaluationError: it can't be written; what was there stays.
    """
    partial = partial_of(path)
    try:
        with partial.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            partial.chmod(path.stat().st_mode & 0o7777)
        partial.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            raise EvaluationError(f"{path}: can't be written ({error.strerror})") from None
        raise


def sync_folder(folder: Path) -> None:
    """See that a file's name is on the disk, too, where the file system allows it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
