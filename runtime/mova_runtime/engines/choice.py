"""Which backend runs a bundle, and in which precision: decided without importing any of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mova_runtime.bundle.manifest import PRECISIONS, Precision
from mova_runtime.engines.installed import has_module, version
from mova_runtime.engines.machine import multiplies
from mova_runtime.engines.nvidia import gpu
from mova_runtime.engines.trt import library
from mova_runtime.errors import BackendError

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle

BACKENDS = ("ort", "ort-cuda", "openvino", "tensorrt", "tensorrt-rtx")

RUNS: dict[str, tuple[Precision, ...]] = {
    "ort": ("fp32", "fp16", "int8", "int4"),  # its CPU kernels know no bfloat16
    "ort-cuda": ("fp32", "fp16", "bf16", "int8", "int4"),
    "openvino": ("fp32", "bf16", "fp16"),
    "tensorrt": ("fp32", "fp16", "bf16"),
    "tensorrt-rtx": ("fp32", "fp16", "bf16"),
}
"""By backend, the precisions it can run."""

_ON_CPU: dict[Precision, tuple[str, ...]] = {
    "fp32": ("ort", "openvino"),
    "bf16": ("openvino",),
    "fp16": ("openvino", "ort"),
    "int8": ("ort",),
    "int4": ("ort",),
}
"""By precision, the backends for a CPU, the best first."""


@dataclass(frozen=True)
class Choice:
    """A backend, a precision, and why they were chosen; `obstacle` says why they can't run here, empty if they can."""

    backend: str
    precision: Precision
    why: str
    obstacle: str = ""

    def __str__(self) -> str:
        return f"{self.backend}:{self.precision}"


def choose(bundle: Bundle, backend: str = "auto", precision: str | None = None) -> Choice:
    """What runs a bundle.

    Args:
        bundle: says which precisions there are; the first is the one its maker exported it for.
        backend: one of BACKENDS, or "auto": on an NVIDIA GPU engines that were built for it, else ONNX Runtime's CUDA
            provider; on a CPU what is installed and runs the precision.
        precision: one of PRECISIONS; None takes the bundle's first that the backend runs here.

    Raises:
        BackendError: unknown, not installed, or the precision is none of the backend's, the processor's, the bundle's.
    """
    chosen = _consider(bundle, backend, precision)
    if chosen.obstacle:
        raise BackendError(chosen.obstacle)
    return chosen


def choose_in_order(
    bundle: Bundle, backend: str = "auto", precision: str | None = None, fallback: Sequence[str] | None = ()
) -> tuple[Choice, ...]:
    """What is meant to run a bundle, then what may stand in for it.

    Args:
        bundle: as in `choose`.
        backend: as in `choose`.
        precision: as in `choose`.
        fallback: in order; each "backend:precision", a backend, or a precision of the first's backend.

    Returns:
        All that were named, the first's first; one that can't run here has an `obstacle`, and at least one can.

    Raises:
        BackendError: as `choose` where no fallback can run either; a fallback is none.
    """
    if isinstance(fallback, str):
        raise BackendError(f"fallback is a sequence such as ('ort:fp32',), not {fallback!r}")
    choices = (
        _consider(bundle, backend, precision),
        *(_fallback(bundle, backend, text) for text in fallback or ()),
    )
    if all(choice.obstacle for choice in choices):
        raise BackendError("; fallback: ".join(choice.obstacle for choice in choices))
    return choices


def lacking(backend: str, precision: Precision = "fp32") -> str | None:
    """What a backend needs that is not here, and how to get it; None where nothing is missing."""
    if backend == "ort":
        return None if has_module("onnxruntime") else "pip install onnxruntime (extra `cpu`)"
    if backend == "openvino":
        if not has_module("openvino"):
            return "pip install openvino (extra `openvino`)"
        return None if multiplies(precision) else f"this processor does not multiply {precision}"
    if backend == "ort-cuda":
        if not version("onnxruntime-gpu"):
            return "pip install onnxruntime-gpu (extra `gpu`), without onnxruntime beside it"
    elif not has_module(library.MODULES[backend]):
        return library.EXTRA[backend]
    if not gpu():
        return "no NVIDIA GPU, or no driver for it"
    return None if has_module("cuda.bindings") else "pip install cuda-bindings, of the driver's CUDA version or older"


def _consider(bundle: Bundle, backend: str, precision: str | None) -> Choice:
    if backend not in ("auto", *BACKENDS):
        raise BackendError(f"unknown backend {backend!r}; one of auto, {', '.join(BACKENDS)}")
    if precision is not None and precision not in PRECISIONS:
        raise BackendError(f"unknown precision {precision!r}; one of {', '.join(PRECISIONS)}")
    if backend == "auto":
        return _on_gpu(bundle, precision) or _on_cpu(bundle, precision)
    candidates = (precision,) if precision else bundle.precisions
    obstacles = {candidate: _obstacle(bundle, backend, candidate) for candidate in candidates}
    for candidate, obstacle in obstacles.items():
        if not obstacle:
            return Choice(backend, candidate, "as asked")
    first, obstacle = next(iter(obstacles.items()))
    return Choice(backend, first, "as asked", f"backend {backend}: {obstacle}")


def _fallback(bundle: Bundle, first: str, text: str) -> Choice:
    backend, _, precision = str(text).partition(":")
    if backend in PRECISIONS and not precision:
        backend, precision = first, backend
    elif backend not in BACKENDS:
        raise BackendError(f"fallback {text!r}: expected a backend, a precision, or both as in ort:fp32")
    chosen = _consider(bundle, backend, precision or None)
    return Choice(chosen.backend, chosen.precision, "a fallback", chosen.obstacle)


def _on_gpu(bundle: Bundle, precision: Precision | None) -> Choice | None:
    """What uses the GPU; None where there is none, or nothing that could."""
    found = gpu()
    if not found:
        return None
    from mova_runtime.engines.trt import lookup  # noqa: PLC0415  # most machines have no GPU

    candidates = (precision,) if precision else bundle.precisions
    for flavour in library.FLAVOURS:
        for candidate in candidates:
            if not _obstacle(bundle, flavour, candidate) and lookup.is_complete(bundle, candidate, flavour):
                return Choice(flavour, candidate, f"the bundle has engines for this {found.name}")
    for candidate in candidates:
        if not _obstacle(bundle, "ort-cuda", candidate):
            why = f"this machine has a {found.name}, the bundle no engines for all of it"
            return Choice("ort-cuda", candidate, why)
    return None


def _on_cpu(bundle: Bundle, precision: Precision | None) -> Choice:
    found = gpu()
    device = f"the CPU: nothing that could use the {found.name} is installed" if found else "the CPU"
    wanted = (precision,) if precision else bundle.precisions
    for candidate in wanted:
        able = [backend for backend in _ON_CPU[candidate] if not _obstacle(bundle, backend, candidate)]
        if able:
            source = "as asked" if precision else "the bundle's first that runs here"
            beside = f", rather than {able[1]}" if able[1:] else ""
            return Choice(able[0], candidate, f"{candidate} ({source}) on {device}{beside}")
    first = wanted[0]
    obstacles = "; ".join(f"{backend}: {_obstacle(bundle, backend, first)}" for backend in _ON_CPU[first])
    return Choice("auto", first, f"nothing runs it on {device}", f"nothing here runs {first}; {obstacles}")


def _obstacle(bundle: Bundle, backend: str, precision: Precision) -> str | None:
    """Why a backend can't run any of the bundle in a precision; each component is asked for its own when loaded."""
    if precision not in RUNS[backend]:
        return f"does not run {precision}; it runs {', '.join(RUNS[backend])}"
    if lack := lacking(backend, precision):
        return lack
    sources: tuple[Precision, ...] = (precision, "fp32") if backend == "openvino" else (precision,)
    if any(bundle.has(name, source) for name in bundle.manifest.components for source in sources):
        return None
    has = ", ".join(bundle.precisions)
    return f"no {precision} in the bundle (it has {has}); export it with `--precision {precision}`"
