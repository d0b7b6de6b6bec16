"""What each backend can run: which components and precisions, what it needs, and what of that is not here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mova_runtime.bundle.manifest import Precision
from mova_runtime.engines.installed import has_module, version
from mova_runtime.engines.machine import multiplies
from mova_runtime.engines.nvidia import gpu
from mova_runtime.engines.trt import library

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle

BACKENDS = ("ort", "ort-cuda", "openvino", "tensorrt", "tensorrt-rtx", "cuda")

RUNS: dict[str, tuple[Precision, ...]] = {
    "ort": ("fp32", "fp16", "int8", "int4"),  # its CPU kernels know no bfloat16
    "ort-cuda": ("fp32", "fp16", "bf16", "int8", "int4"),
    "openvino": ("fp32", "bf16", "fp16"),
    "tensorrt": ("fp32", "fp16", "bf16"),
    "tensorrt-rtx": ("fp32", "fp16", "bf16"),
    "cuda": ("bf16", "fp16"),
}
"""By backend, the precisions it can run."""

ONLY: dict[str, tuple[str, ...]] = {"cuda": ("adapter",)}
"""By backend, the components it has, where it has not all."""

ON_CPU: dict[Precision, tuple[str, ...]] = {
    "fp32": ("ort", "openvino"),
    "bf16": ("openvino",),
    "fp16": ("openvino", "ort"),
    "int8": ("ort",),
    "int4": ("ort",),
}
"""By precision, the backends for a CPU, the best first."""


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
    elif backend == "cuda":
        for module, package in (("cuda.core", "cuda-core"), ("nvmath", "nvmath-python")):
            if not has_module(module):
                return f"pip install {package} (extra `cuda`)"
    elif not has_module(library.MODULES[backend]):
        return library.EXTRA[backend]
    if not gpu():
        return "no NVIDIA GPU, or no driver for it"
    return None if has_module("cuda.bindings") else "pip install cuda-bindings, of the driver's CUDA version or older"


def runnable(bundle: Bundle, backend: str, precision: Precision) -> set[str]:
    """Components that were exported in what a backend runs a precision from: it, or float32 where it converts that."""
    sources: tuple[Precision, ...] = (precision, "fp32") if backend == "openvino" else (precision,)
    return {name for name in bundle.manifest.components if any(bundle.has(name, source) for source in sources)}


def obstacle(bundle: Bundle, backend: str, precision: Precision, component: str = "") -> str | None:
    """Why a backend can't run a component, or any of the bundle, in a precision; each is asked again when loaded."""
    if precision not in RUNS[backend]:
        return f"does not run {precision}; it runs {', '.join(RUNS[backend])}"
    if lack := lacking(backend, precision):
        return lack
    if backend == "cuda":  # it has weights of its own, which are looked for when they are loaded
        return None
    if runnable(bundle, backend, precision) & {component or name for name in bundle.manifest.components}:
        return None
    has = ", ".join(bundle.precisions)
    return f"no {precision} in the bundle (it has {has}); export it with `--precision {precision}`"
