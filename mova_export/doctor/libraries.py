"""The libraries that engines come from: which are installed, and whether they can be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mova_export.doctor.isolated import Reply
from mova_runtime.engines.installed import has_module, version

PACKAGES = ("numpy", "pillow", "tokenizers")
"""Without them nothing runs."""

EXPORT = ("torch", "transformers", "optimum-onnx", "onnx", "onnxscript", "safetensors", "onnxruntime")
"""What exporting takes; looked for, never imported."""

_DRIVER = """
from dataclasses import asdict
from mova_export.bench.facts import machine
from mova_runtime.engines.nvidia import gpu
found = gpu()
answer(found and {**asdict(found), "memory": machine()["gpu"]["memory_bytes"]})
"""

_PLAIN = "import {0}; answer([{0}.__version__, ''])"
_OPENVINO = """
import openvino
answer([openvino.__version__.partition("-")[0], ", ".join(openvino.Core().available_devices)])
"""
_ONNX_RUNTIME = "import onnxruntime as o; answer([o.__version__, ', '.join(o.get_available_providers())])"
_TENSORRT = "import {0}; {0}.Logger; answer([{0}.__version__, ''])"
_CUDA_CORE = "import cuda.core as core; core.ObjectCode, core.launch; answer([core.__version__, ''])"


@dataclass(frozen=True)
class Kind:
    """A library: its module, what it may be installed as, and what asks it for its version and what it offers."""

    module: str
    packages: tuple[str, ...]
    code: str


_PILLOW = "import PIL, PIL.Image; answer([PIL.__version__, ''])"
_BINDINGS = "import cuda.bindings as c, cuda.bindings.runtime; answer([c.__version__, ''])"
_RTX = ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx")

KINDS = {
    "numpy": Kind("numpy", ("numpy",), _PLAIN.format("numpy")),
    "pillow": Kind("PIL", ("pillow",), _PILLOW),
    "tokenizers": Kind("tokenizers", ("tokenizers",), _PLAIN.format("tokenizers")),
    "onnxruntime": Kind("onnxruntime", ("onnxruntime", "onnxruntime-gpu"), _ONNX_RUNTIME),
    "openvino": Kind("openvino", ("openvino",), _OPENVINO),
    "tensorrt": Kind("tensorrt", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"), _TENSORRT.format("tensorrt")),
    "tensorrt-rtx": Kind("tensorrt_rtx", _RTX, _TENSORRT.format("tensorrt_rtx")),
    "cuda-bindings": Kind("cuda.bindings", ("cuda-bindings",), _BINDINGS),
    "cuda-core": Kind("cuda.core", ("cuda-core",), _CUDA_CORE),
    "nvmath": Kind("nvmath", ("nvmath-python",), _PLAIN.format("nvmath")),
    "triton": Kind("triton", ("triton",), _PLAIN.format("triton")),
}
"""By the name that is shown."""

NEEDS_DRIVER = ("cuda-core", "nvmath")
"""Those that can hang where there is no driver; without a GPU they are looked for and not imported."""

USES: dict[str, tuple[str, ...]] = {
    "ort": ("onnxruntime",),
    "ort-cuda": ("onnxruntime", "cuda-bindings"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "cuda-bindings"),
    "tensorrt-rtx": ("tensorrt-rtx", "cuda-bindings"),
    "cuda": ("cuda-core", "nvmath", "cuda-bindings"),
}
"""By backend, the libraries that it imports."""

DRIVER = "driver"


@dataclass(frozen=True)
class Library:
    """version: empty where it is not installed; offers: what it says that it has; trouble: why it can't be used."""

    version: str
    offers: str = ""
    trouble: str = ""

    @property
    def installed(self) -> bool:
        """Whether it is there, usable or not."""
        return bool(self.version)


def questions() -> dict[str, tuple[str, ...]]:
    """What to ask in processes of their own: the driver, and each library that is installed."""
    asked = {name: (kind.code,) for name, kind in KINDS.items() if has_module(kind.module)}
    return {DRIVER: (_DRIVER,), **{name: code for name, code in asked.items() if name not in NEEDS_DRIVER}}


def questions_on_a_gpu() -> dict[str, tuple[str, ...]]:
    """The same, for those that are imported only where the driver answered."""
    return {name: (KINDS[name].code,) for name in NEEDS_DRIVER if has_module(KINDS[name].module)}


def libraries(replies: Mapping[str, Reply]) -> dict[str, Library]:
    """What each library of `KINDS` is, by the replies to its question."""
    return {name: _library(kind, replies.get(name)) for name, kind in KINDS.items()}


def _library(kind: Kind, reply: Reply | None) -> Library:
    told = _version(kind) if has_module(kind.module) else ""
    if reply is None:
        return Library(told)
    if reply.trouble:
        return Library(told or "unknown", trouble=reply.trouble)
    found, offers = reply.found
    return Library(str(found), offers)


def _version(kind: Kind) -> str:
    return next((found for package in kind.packages if (found := version(package))), "unknown")
