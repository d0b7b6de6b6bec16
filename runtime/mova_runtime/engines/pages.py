"""Files whose weights are mapped: read into the system's page cache before, and no longer held once they were copied.

A page that has to come from the disk while an engine runs comes late, and a disk that fails then ends the process. Read
before, they come as fast as the disk gives them, beside other work where an engine is loaded ahead, and what can't be
read is an error of the load.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mova_runtime.errors import IntegrityError

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle
    from mova_runtime.bundle.manifest import File

_MAPS = Path("/proc/self/maps")
_STEP = 4 << 20
"""Bytes that are read at once, a multiple of the page size."""


def ready(bundle: Bundle, files: Sequence[File]) -> list[Path]:
    """Where files of a bundle are, ready to be mapped: checked, and in the page cache.

    Raises:
        IntegrityError: one is not what the manifest says, or can't be read.
    """
    paths = [bundle.checked_path(file) for file in files]
    for path in paths:
        try:
            read_in(path)
        except OSError as error:
            raise IntegrityError(f"{path}: can't be read ({error.strerror})") from None
    return paths


def read_in(path: Path) -> int:
    """Read what is not in the page cache yet; how many bytes that were.

    All of it is read where the system does not tell this user: 4.4 GB that are there already take 0.7 s.

    Raises:
        OSError: the disk does not give them.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return 0
        buffer = bytearray(_STEP)
        there = _resident(file.fileno(), size) if _is_told(path) else np.zeros(-(-size // _STEP), np.bool_)
        missing = np.flatnonzero(~there)
        for step in missing.tolist():
            file.seek(step * _STEP)
            file.readinto(buffer)
        return min(size, len(missing) * _STEP)


def let_go(paths: Sequence[Path]) -> None:
    """Hold no page of these files that are mapped here: who reads them again finds them in the page cache.

    For a library that keeps a file mapped after it has copied what it needs. What is mapped to be written to is left
    alone, and nothing is done where the system does not tell what is mapped.
    """
    names = {os.path.realpath(path) for path in paths}
    try:
        mapped = _MAPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        advise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in mapped:
        place, mode, *rest = line.split(maxsplit=5)
        if "w" not in mode and len(rest) == 4 and rest[3] in names:
            start, end = (int(bound, 16) for bound in place.split("-"))
            advise(start, end - start, mmap.MADV_DONTNEED)


def _resident(file: int, size: int) -> np.ndarray:
    """For each step of a file whether all of it is in the page cache: [steps] bool.

    Where a system can't tell, all counts as there: it is read when it is needed.
    """
    steps = -(-size // _STEP)
    mincore = _mincore()
    if not mincore:
        return np.ones(steps, np.bool_)
    pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    with mmap.mmap(file, size, access=mmap.ACCESS_READ) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        failed = mincore(view.ctypes.data, size, pages.ctypes.data)
        del view  # a mapping can't be closed while it is viewed
    if failed:
        return np.ones(steps, np.bool_)
    starts = np.arange(0, len(pages), _STEP // mmap.PAGESIZE)
    return np.minimum.reduceat(pages & 1, starts).astype(np.bool_)


def _is_told(path: Path) -> bool:
    """Whether this user is told what of a file is in the page cache.

    Linux tells who owns a file or may write it. To others, such as a service that reads root's files, it says that all
    is there, lest they see what was read by whom.
    """
    user = os.geteuid()
    if user in (0, path.stat().st_uid):
        return True
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


@cache
def _mincore() -> Any:
    """Linux' `mincore`, or None."""
    try:
        found = ctypes.CDLL(None).mincore
    except (OSError, AttributeError):
        return None
    found.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    return found
