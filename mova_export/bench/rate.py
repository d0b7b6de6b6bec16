"""How fast this machine multiplies large matrices: what a component's time is held against."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from mova_export.bench import product
from mova_runtime.bundle.manifest import Precision
from mova_runtime.engines.abilities import RUNS, lacking
from mova_runtime.engines.protocol import Binding, Engine
from mova_runtime.errors import BackendError

SMALL, LARGE = 2048, 4096
"""Rows and columns: the small one where the large one would take too long."""

PRODUCTS = {"ort": 1, "openvino": 1, "ort-cuda": 16}
"""By backend that can be asked, how many a run holds: on a GPU one takes hardly longer than it takes to start it."""

_FLOATS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
_LONG = 1.0
"""Seconds of a run that are too many."""

_MOST_RUNS, _MOST_SECONDS = 8, 3.0


def matrix_rates(backends: Sequence[tuple[str, Precision]], threads: int | None) -> dict[str, float]:
    """Floating-point operations a second of a product of two square matrices, the best of a few runs.

    A backend that is not here, does not run the precision or runs into something is left out, and so are precisions
    of weights alone, whose arithmetic is that of another precision.

    Args:
        backends: names and precisions.
        threads: of an engine; None leaves it to the backend.

    Returns:
        By "backend precision", such as "openvino bf16".
    """
    rates = {}
    for backend, precision in dict.fromkeys(backends):
        if precision not in _FLOATS or precision not in RUNS.get(backend, ()) or backend not in PRODUCTS:
            continue
        if lacking(backend, precision):
            continue
        try:
            rates[f"{backend} {precision}"] = _best(backend, precision, threads)
        except (BackendError, OSError):  # the latter: no room for the file
            continue
    return rates


def _best(backend: str, precision: Precision, threads: int | None) -> float:
    """Of the larger size, too, where that is quick: more of its time is the product's."""
    rate = _rate(backend, precision, threads, SMALL)
    if _operations(backend, LARGE) / rate > _LONG:
        return rate
    return max(rate, _rate(backend, precision, threads, LARGE))


def _rate(backend: str, precision: Precision, threads: int | None, size: int) -> float:
    with tempfile.TemporaryDirectory(prefix="mova-rate-") as folder:
        engine = _open(Path(folder), backend, precision, threads, size)
        try:
            binding = engine.bind()
            try:
                seconds = _quickest(binding, size)
            finally:
                binding.close()
        finally:
            engine.close()
    return _operations(backend, size) / seconds


def _quickest(binding: Binding, size: int) -> float:
    """Seconds of the quickest run after the first. Nothing is copied: what comes out of one goes into the next."""
    binding.set("x", np.random.default_rng(1).standard_normal((size, size), np.float32))
    binding.run()
    times: list[float] = []
    while len(times) < _MOST_RUNS and sum(times) < _MOST_SECONDS:
        binding.carry("y", "x")
        start = perf_counter()
        binding.run()
        times.append(perf_counter() - start)
    return min(times)


def _open(folder: Path, backend: str, precision: Precision, threads: int | None, size: int) -> Engine:
    """The product as an engine, opened as the backend opens a component.

    Raises:
        BackendError: as the backend's.
        OSError: the file can't be written.
    """
    if backend == "openvino":  # which rounds a float32 graph itself
        from mova_runtime.engines import ov  # noqa: PLC0415  # backends are imported when they are asked for

        model = product.write(folder, size, "fp32", PRODUCTS[backend])
        return ov.open_engine(model, "product", _bytes(folder), precision, threads)
    from mova_runtime.engines import ort  # noqa: PLC0415

    model = product.write(folder, size, precision, PRODUCTS[backend])
    if backend == "ort":
        return ort.open_engine(model, "product", _bytes(folder), threads, prepack=True)
    from mova_runtime.engines.cuda.memory import device  # noqa: PLC0415
    from mova_runtime.engines.cuda.session import OrtCudaEngine  # noqa: PLC0415

    here = device()
    return OrtCudaEngine(ort.open_session(model, "product", threads, "cuda"), "product", _bytes(folder), here)


def _operations(backend: str, size: int) -> int:
    return 2 * size**3 * PRODUCTS[backend]


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
