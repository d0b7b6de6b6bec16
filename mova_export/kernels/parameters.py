"""The adapter's parameters, by name, out of the graph that was exported from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from mova_export.errors import ExportError
from mova_kernels import variants
from mova_kernels.variants import problems
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.kernels import ADAPTER, AdapterShape
from mova_runtime.bundle.manifest import Artifact, Precision

Read = Callable[[], np.ndarray]
"""Reads a parameter, or makes one of others, when its turn comes."""

_TRANSPOSED = ".T"


@dataclass(frozen=True)
class Parameters:
    """Reads one parameter at a time: the graph's weights stay in their file.

    graph: sha256 of the artifact; initializers: of its graph, by name.
    """

    graph: str
    precision: Precision
    initializers: dict[str, ir.TensorProtocol]

    def reader(self, name: str, *shape: int) -> Read:
        """Reads a parameter as torch stores it, in the graph's type; matrices are [output, input].

        Raises:
            ExportError: the graph has none of this name, as graphs had before they kept all names, or of another shape.
        """
        if (found := self.shape(name)) != shape:
            raise ExportError(f"the adapter's weight {name!r} is {list(found)}, not {list(shape)}")
        return partial(self._read, name)

    def shape(self, name: str) -> tuple[int, ...]:
        """A parameter's shape, as torch stores it.

        Raises:
            ExportError: the graph has none of this name.
        """
        tensor, transposed = self._find(name)
        shape = tuple(tensor.shape.numpy())
        return shape[::-1] if transposed else shape

    def _read(self, name: str) -> np.ndarray:
        tensor, transposed = self._find(name)
        array = _values(tensor)
        return array.T if transposed else array

    def _find(self, name: str) -> tuple[ir.TensorProtocol, bool]:
        for suffix in ("", f".{self.precision}"):  # graphs of lower precision name the copies they round
            for kind in ("", _TRANSPOSED):
                if found := self.initializers.get(f"{name}{kind}{suffix}"):
                    return found, bool(kind)
        raise ExportError(
            f"the adapter's {self.precision} graph has no weight {name!r}: the bundle was exported by an older "
            "version; export it again"
        )


def open_parameters(bundle: Bundle, precision: Precision) -> Parameters:
    """The parameters to pack in a precision: of the float32 graph, or the precision's own where there is no other.

    Raises:
        BundleError: the bundle has neither, or was exported without the adapter.
        IntegrityError: the graph's files are not what the manifest says.
    """
    artifact = _source(bundle, precision)
    path, *_ = [bundle.checked_path(file) for file in artifact.files]
    tensors = {name: value.const_value for name, value in ir.load(path).graph.initializers.items()}
    return Parameters(
        artifact.sha256, artifact.precision, {name: tensor for name, tensor in tensors.items() if tensor is not None}
    )


def shape_of(bundle: Bundle, parameters: Parameters) -> AdapterShape:
    """The adapter's sizes.

    Raises:
        ExportError: kernels can't be compiled for them, or a weight is missing.
    """
    inputs = {spec.name: spec.shape for spec in bundle.component(ADAPTER).inputs}
    _, blocks, _, channels = (int(axis) if isinstance(axis, int) else 0 for axis in inputs["keys"])
    vision = bundle.manifest.vision
    shape = AdapterShape(
        channels=channels,
        text_channels=parameters.shape("blocks.0.block.gate.0.weight")[1] - channels,
        hidden=parameters.shape("adapter.mlp.2.weight")[0],
        grid=vision.grid,
        blocks=blocks,
        experts=len(vision.experts),
        top_k=vision.top_k,
        feed_forward=parameters.shape("blocks.0.block.mlp.w1.weight")[0],
        squeezed=parameters.shape("adapter.downsample.0.b1.se.fc1.weight")[0],
    )
    if found := problems(compiler_shape(shape)):
        raise ExportError(f"there are no kernels for this adapter: {'; '.join(found)}")
    return shape


def compiler_shape(shape: AdapterShape) -> variants.AdapterShape:
    """The same sizes as the kernels' package has them: it knows nothing of bundles."""
    return variants.AdapterShape(**asdict(shape))


def _values(tensor: ir.TensorProtocol) -> np.ndarray:
    """A weight's values, mapped where they lie beside the graph: the bundle has checked both files."""
    if isinstance(tensor, ir.ExternalTensor):  # its own numpy() refuses files with hard links, as bundles may be copied
        shape, dtype = tuple(tensor.shape.numpy()), tensor.dtype.numpy()
        return np.memmap(tensor.path, dtype, "r", tensor.offset or 0, shape)
    array: np.ndarray = tensor.numpy()
    return array


def _source(bundle: Bundle, precision: Precision) -> Artifact:
    return bundle.artifact(ADAPTER, "fp32" if bundle.has(ADAPTER, "fp32") else precision)
