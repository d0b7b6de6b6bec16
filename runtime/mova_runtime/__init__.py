"""MoVA's runtime: opens a bundle, routes a question, loads the experts it selects, fuses, answers.

import mova_runtime as mova

with mova.open("bundle") as rt:
    print(rt.answer("photo.jpg", "What is on the table?").text)
"""

from __future__ import annotations

from pathlib import Path

from mova_runtime.errors import (
    BackendError,
    BundleError,
    ExpertError,
    ImageError,
    IntegrityError,
    ManifestVersionError,
    MemoryBudgetError,
    MovaError,
    QuestionError,
)
from mova_runtime.runtime import Runtime
from mova_runtime.types import Answer, Routing, Stats, Visual

__all__ = [
    "Answer",
    "BackendError",
    "BundleError",
    "ExpertError",
    "ImageError",
    "IntegrityError",
    "ManifestVersionError",
    "MemoryBudgetError",
    "MovaError",
    "QuestionError",
    "Routing",
    "Runtime",
    "Stats",
    "Visual",
    "open",
]


def open(  # `mova.open`, as one opens a file
    path: str | Path, *, backend: str = "auto", memory_budget: str | int | None = None, threads: int | None = None
) -> Runtime:
    """Open a bundle.

    Args:
        path: the bundle's folder.
        backend: "ort", or "auto" for the best that is installed.
        memory_budget: bound on the loaded engines' bytes, such as "6GiB"; the least recently used go first.
        threads: threads of each engine; None is one a physical core.

    Raises:
        BundleError: the folder is not a bundle, or its manifest is wrong.
        ManifestVersionError: the bundle is of a newer format.
        BackendError: the backend is unknown or not installed.
        MemoryBudgetError: `memory_budget` is not a size.
    """
    return Runtime(path, backend=backend, memory_budget=memory_budget, threads=threads)
