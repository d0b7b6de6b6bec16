"""Strictness: every missing, unexpected or misshapen tensor is named before anything is exported."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from mova_export.checkpoint.layout import component_of, is_unused
from mova_export.errors import TensorMismatchError

Shapes = Mapping[str, tuple[int, ...]]


def check_tensors(found: Shapes, expected: Shapes, resizable: Collection[str], components: Collection[str]) -> None:
    """Compare a checkpoint's tensors with what the modules ask for.

    Args:
        found: published names and shapes in the checkpoint.
        expected: published names and shapes the modules of `components` load.
        resizable: names of position tables that may have any square number of positions after the CLS one.
        components: those to be exported; tensors of other components are left alone.

    Raises:
        TensorMismatchError: naming every tensor that is missing, unexpected or of another shape.
    """
    missing = [name for name in expected if name not in found]
    unexpected = [
        name
        for name in found
        if name not in expected and not is_unused(name) and component_of(name) in (None, *components)
    ]
    misshapen = [
        f"{name} {list(found[name])} (expected {list(shape)})"
        for name, shape in expected.items()
        if name in found and found[name] != shape and not (name in resizable and _is_position_table(found[name], shape))
    ]
    problems = (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
    if any(names for _, names in problems):
        lines = [f"{len(names)} {kind}: {', '.join(names)}" for kind, names in problems if names]
        raise TensorMismatchError("the checkpoint's tensors don't fit its configuration; " + "; ".join(lines))


def _is_position_table(found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    if len(found) != len(expected) or found[-1] != expected[-1]:
        return False
    positions = found[-2] - 1
    return positions > 0 and math.isqrt(positions) ** 2 == positions
