"""Where the runtime keeps what saves it work: verdicts, compiled kernels, timings. All of it may be deleted."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path


def cache_folder() -> Path:
    """$MOVA_CACHE, or `mova` in $XDG_CACHE_HOME or ~/.cache; without a home, in the folder for temporary files."""
    if chosen := os.environ.get("MOVA_CACHE"):
        return Path(os.path.expanduser(chosen))  # noqa: PTH111  # pathlib's raises where there is no home
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "mova"
    try:
        return Path.home() / ".cache" / "mova"
    except RuntimeError:  # a user without an entry, as in containers
        import tempfile  # noqa: PLC0415  # slow to import, and seldom needed

        return Path(tempfile.gettempdir()) / f"mova-{os.getuid()}"


def keep(path: Path, data: bytes) -> bool:
    """Write a file of the cache, whole or not at all; whether it could be written. Its folder is made."""
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        return False
    return True
