"""MoVA's runtime: opens a bundle, routes a question, loads the experts it selects, fuses, answers.

import mova_runtime as mova

with mova.open("bundle") as rt:
    print(rt.answer("photo.jpg", "What is on the table?").text)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mova_runtime.errors import (
    BackendError,
    BundleError,
    EngineKeyError,
    ExpertError,
    ImageError,
    IntegrityError,
    ManifestVersionError,
    MemoryBudgetError,
    MovaError,
    ParityError,
    QuestionError,
)
from mova_runtime.runtime import Runtime
from mova_runtime.types import Answer, Routing, Served, Stats, Visual

__all__ = [
    "Answer",
    "BackendError",
    "BundleError",
    "EngineKeyError",
    "ExpertError",
    "ImageError",
    "IntegrityError",
    "ManifestVersionError",
    "MemoryBudgetError",
    "MovaError",
    "ParityError",
    "QuestionError",
    "Routing",
    "Runtime",
    "Served",
    "Stats",
    "Visual",
    "open",
]


def open(  # `mova.open`, as one opens a file
    path: str | Path,
    *,
    backend: str = "auto",
    precision: str | None = None,
    fallback: Sequence[str] | None = (),
    memory_budget: str | int | None = None,
    threads: int | None = None,
) -> Runtime:
    """Open a bundle.

    Args:
        path: the bundle's folder.
        backend: "ort", "ort-cuda", "openvino", "tensorrt" or "tensorrt-rtx"; "auto" picks by what is installed and
            what the device is (`Runtime.choice` tells what and why). After it, what single components have of their
            own, as in "ort-cuda,adapter=cuda:bf16": "cuda" has the adapter alone.
        precision: "fp32", "fp16", "bf16", "int8" or "int4"; None is the first the bundle was exported in.
        fallback: what may serve a component that the first choice can't, in order: "ort:fp32", a backend, or a
            precision. Those that can't run here are passed over. Without it nothing falls back.
        memory_budget: bound on the loaded engines' bytes, such as "6GiB"; the least recently used go first.
        threads: threads of each engine; None is one a physical core.

    Raises:
        BundleError: the folder is not a bundle, or its manifest is wrong.
        ManifestVersionError: the bundle is of a newer format.
        BackendError: a backend or precision is unknown, not installed, or can't run here.
        MemoryBudgetError: `memory_budget` is not a size.
    """
    return Runtime(
        path, backend=backend, precision=precision, fallback=fallback, memory_budget=memory_budget, threads=threads
    )
