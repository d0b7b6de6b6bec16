"""Bundles for the tests of `mova build`: what engines are built for, which are on disk."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

needs_tensorrt_rtx = pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux", reason="the dev extra has TensorRT-RTX on Linux x86_64"
)
NAMES = ("sm_86", "sm_89", "sm_120")
RTX = ("--backend", "tensorrt-rtx")


def hidden(bundle: Path) -> list[str]:
    """What a build left beside engines."""
    return sorted(path.name for path in (bundle / "engines").glob(".*"))


def engine_files(bundle: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in (bundle / "engines").glob("*/engine.plan")}
