"""Files that were found to have the right bytes, remembered on this machine: not every process hashes a bundle.

A file counts as the same while its place, size and times are. Its status time changes with whatever is done to it, and
can't be set: other bytes of the same size with their old modification time are noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from mova_runtime.cache_folder import cache_folder, keep

SETTLED = 2.0
"""Seconds. What is younger could change again without a change of its times, which go in steps."""


@dataclass(frozen=True)
class Seen:
    """A file as it was when its bytes were looked at; times in nanoseconds."""

    path: str
    device: int
    inode: int
    bytes: int
    modified: int
    changed: int
    sha256: str

    @classmethod
    def now(cls, path: Path, sha256: str) -> Seen:
        """A file as it is, whose bytes are supposed to have a hash.

        Raises:
            OSError: it can't be looked at.
        """
        status = path.stat()
        place = os.fspath(path.resolve())
        return cls(place, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, sha256)

    @property
    def settled(self) -> bool:
        """Whether a change from now on would show in its times; what is not settled is not to be remembered."""
        return max(self.modified, self.changed) / 1e9 + SETTLED < time.time()


def recall(seen: Seen) -> bool:
    """Whether a file, as it is now, was found right before."""
    try:
        return bool(json.loads(_record(seen).read_text(encoding="utf-8")) == asdict(seen))
    except (OSError, ValueError, RecursionError):
        return False


def remember(seen: Seen) -> None:
    """Keep that a file was found right; a folder that can't be written means that it is hashed again."""
    keep(_record(seen), json.dumps(asdict(seen)).encode())


def _record(seen: Seen) -> Path:
    """One for each place: what a file was before is of no use any more."""
    return cache_folder() / "checked" / f"{hashlib.sha256(seen.path.encode()).hexdigest()[:32]}.json"
