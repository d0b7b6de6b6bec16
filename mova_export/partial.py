"""Folders that are written beside their place and renamed into it: who is at work, and what was left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def begin(partial: Path, siblings: str, door: Path) -> int:
    """Make a folder to write in, and remove what processes that were killed left beside it.

    Args:
        partial: the folder; it is not there yet.
        siblings: glob pattern of such folders beside it.
        door: a folder that everybody who begins beside `partial` names alike.

    Returns:
        The folder's lock, to be closed by who is done; it goes with the process.

    Raises:
        OSError: the folder can't be made.
    """
    with turn(door):
        partial.parent.mkdir(exist_ok=True)
        for folder in partial.parent.glob(siblings):
            with contextlib.suppress(OSError):  # another's, at work
                lock = _lock(folder)
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
        partial.mkdir()
        return _lock(partial)


@contextlib.contextmanager
def turn(door: Path) -> Iterator[None]:
    """One comes or goes at a time: what one makes, another must not take for abandoned or empty."""
    descriptor = os.open(door, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock(folder: Path) -> int:
    """Lock a folder.

    Raises:
        OSError: another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
