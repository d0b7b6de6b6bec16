"""Where the runtime keeps what saves it work: verdicts, compiled kernels, timings. All of it may be deleted."""

from __future__ import annotations

import os
import tempfile
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
        return Path(tempfile.gettempdir()) / f"mova-{os.getuid()}"
