"""TensorRT's timing cache: which kernels were fastest for a layer, so that the next build need not time them again.

Only TensorRT times kernels when it builds. TensorRT-RTX chooses them on the device: there such a cache changes nothing
in an engine, and asking for one asks for a GPU.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from mova_runtime import cache_folder
from mova_runtime.bundle.engine import EngineKey


def timing_file(key: EngineKey) -> Path | None:
    """Where the timings that a key's engine may use are kept: by library, version and GPU; None where none are used."""
    if key.flavour == "tensorrt-rtx":
        return None
    return cache_folder.cache_folder() / "timing" / f"{key.flavour}-{key.version}-{key.capability}.cache"


def attach(config: Any, file: Path) -> Any:
    """Give a builder's configuration the timings in a file, if it can be read; the result must outlive the build."""
    known = b""
    with contextlib.suppress(OSError):
        known = file.read_bytes()
    cache = config.create_timing_cache(known)
    config.set_timing_cache(cache, False)
    return cache


def keep(config: Any, file: Path) -> None:
    """Write what a build has timed; where that fails the next build times again."""
    cache_folder.keep(file, bytes(config.get_timing_cache().serialize()))
