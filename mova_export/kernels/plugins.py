"""An adapter for TensorRT that holds our kernels: its graph, and their registration, for one GPU."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from mova_export.errors import ExportError
from mova_export.kernels.packing import Packing, plan
from mova_export.kernels.parameters import compiler_shape, open_parameters, shape_of
from mova_kernels.aot import source_digest
from mova_kernels.targets import TARGETS, Target
from mova_kernels.variants import variants
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.kernels import AdapterShape
from mova_runtime.bundle.manifest import Precision

_registered: list[tuple[AdapterShape, Precision, Target]] = []


def write_plugin_graph(bundle: Bundle, precision: Precision, target: Target, folder: Path) -> Path:
    """Write the adapter's graph with plugins in it.

    Args:
        bundle: has the adapter's weights.
        precision: of matrices and activations.
        target: its tiles decide how sums are cut.
        folder: where the graph and its weights go.

    Returns:
        The graph, its weights beside it.

    Raises:
        ExportError: there are no kernels for this adapter, or a weight is missing.
        BundleError: the bundle has no adapter.
        IntegrityError: its graph is damaged.
    """
    import torch  # noqa: PLC0415  # slow to import, and `mova kernels` needs none of it

    from mova_export.graphs.graph import Graph  # noqa: PLC0415
    from mova_export.graphs.onnx import write_onnx  # noqa: PLC0415
    from mova_export.kernels.plugin_graph import PluginAdapter  # noqa: PLC0415

    parameters = open_parameters(bundle, precision)
    shape = shape_of(bundle, parameters)
    types = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    tensors = {
        packing.name: torch.from_numpy(_bits(packing)).view(types[packing.dtype]).reshape(packing.shape)
        for packing in plan(parameters, shape, precision)
    }
    kernels = {variant.name: variant.constants for variant in variants(compiler_shape(shape), precision, target)}
    module = PluginAdapter(shape, kernels["gate_weights"]["SLICES"], tensors).eval()
    pairs = (2, shape.blocks, shape.grid**2, shape.channels)
    example = {
        "base": torch.zeros(2, shape.grid**2, shape.channels),
        "text": torch.zeros(2, shape.text_channels),
        "keys": torch.zeros(pairs),
        "values": torch.zeros(pairs),
        "pair_image": torch.arange(2),
        "pair_expert": torch.arange(2),
    }
    dynamic = {name: {0: "batch" if name in ("base", "text") else "pairs"} for name in example}
    outputs = {"visual": {0: "batch"}, "gates": {1: "batch"}}
    graph, *_ = write_onnx(Graph(module, module, example, example, dynamic, outputs), folder / "plugins.onnx")
    return graph


def register_plugins(bundle: Bundle, precision: Precision, target: Target, trt: Any) -> None:
    """Tell TensorRT of the plugins that `write_plugin_graph`'s graph holds.

    Raises:
        ExportError: this TensorRT has no ahead-of-time plugins, or has those of another adapter.
        KernelError: a kernel can't be compiled for the target.
    """
    from mova_kernels.plugins.registration import register  # noqa: PLC0415  # compiles on import of Triton

    plugin: Any = None
    with contextlib.suppress(ImportError):
        plugin = importlib.import_module(f"{trt.__name__}.plugin")
    if not hasattr(plugin, "aot_impl"):
        raise ExportError(f"TensorRT {trt.__version__} has no ahead-of-time plugins; 10.8 and later have")
    wanted = (shape_of(bundle, open_parameters(bundle, precision)), precision, target)
    if _registered and _registered != [wanted]:
        raise ExportError("TensorRT takes the plugins of one adapter a process: build the next in another")
    if not _registered:
        register(compiler_shape(wanted[0]), precision, target, plugin, trt.DataType)
        _registered.append(wanted)


def plugin_target(capability: str) -> Target:
    """The target that kernels are compiled for.

    Raises:
        ExportError: there are none for this GPU.
    """
    if capability not in TARGETS:
        raise ExportError(f"there are no kernels for {capability}; there are for {', '.join(TARGETS)}")
    return TARGETS[capability]


def plugin_version() -> str:
    """Eight hexadecimal digits that change with the kernels' source and with Triton."""
    import triton  # noqa: PLC0415  # slow to import

    return hashlib.sha256(f"{source_digest(())} {triton.__version__}".encode()).hexdigest()[:8]


def _bits(packing: Packing) -> np.ndarray:
    """A tensor's values, as bytes."""
    return np.concatenate([np.ascontiguousarray(piece).reshape(-1).view(np.uint8) for piece in packing.values()])
