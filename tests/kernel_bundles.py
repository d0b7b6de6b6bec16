"""Bundles for the tests of `mova kernels`: what their adapter is, few kernels and weights for it, what is on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mova_export.kernels.packing import Packing, plan
from mova_kernels.targets import Target
from mova_kernels.variants import Variant, variants
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.kernels import AdapterShape, read_kernels, read_weights

GRAPH = "components/adapter/fp32/model.onnx"

TINY = AdapterShape(1024, 1024, 64, 8, 1, 7, 3, 2730, 256)
"""The tiny checkpoints' adapter."""

FEW = ("convert", "pool", "squeeze")
"""Kernels that are compiled in no time."""

READ: dict[str, Callable[[Bundle], object]] = {
    "kernels": lambda bundle: read_kernels(bundle, "sm_87", "bf16"),
    "weights": lambda bundle: read_weights(bundle, "bf16"),
}


def some(shape: Any, dtype: str, target: Target) -> tuple[Variant, ...]:
    """In the place of `variants`: the few."""
    return tuple(one for one in variants(shape, dtype, target) if one.name in FEW)


def some_weights(*arguments: Any) -> list[Packing]:
    """In the place of `plan`: two tensors."""
    return [one for one in plan(*arguments) if "query" in one.name]


def hidden(bundle: Path) -> list[str]:
    """What a run left beside kernels."""
    return sorted(path.name for path in (bundle / "kernels").glob(".*"))


def written(bundle: Path) -> dict[str, int]:
    """When each file was written."""
    files = (path for path in (bundle / "kernels").rglob("*") if path.is_file())
    return {path.relative_to(bundle).as_posix(): path.stat().st_mtime_ns for path in files}
