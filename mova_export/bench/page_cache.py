"""Files in and out of the system's page cache: what tells a cold load from a warm one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def forget(files: Iterable[Path]) -> bool:
    """Take files out of the page cache; False where the system can't be asked to.

    Raises:
        OSError: a file can't be opened.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # what was just written stays until it is on the disk
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True
