"""OpenVINO on the CPU: float32, or bfloat16 and float16 where the processor multiplies them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mova_runtime.bundle.manifest import Artifact, Precision
from mova_runtime.engines.host import arrays
from mova_runtime.engines.installed import version
from mova_runtime.engines.machine import identity_of
from mova_runtime.engines.protocol import Inputs
from mova_runtime.errors import BackendError

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVinoBackend:
    """Compiles ONNX files for the CPU.

    It computes in the precision it is asked for whatever the graph's, and decides itself what stays float32, so one
    float32 graph serves every precision; a graph of the precision itself is taken where there is no float32 one.
    """

    name = "openvino"

    def __init__(self, precision: Precision, threads: int | None = None) -> None:
        """`threads` of one engine; None leaves it to OpenVINO: one a physical core."""
        self.precision: Precision = precision
        self._threads = threads

    def identity(self, bundle: Bundle, component: str) -> dict[str, str]:
        """See `Backend.identity`."""
        return {
            "engine": self._artifact(bundle, component).sha256,
            "backend": self.name,
            "precision": self.precision,
            "version": version("openvino") or "unknown",
            **identity_of("cpu"),
        }

    def size(self, bundle: Bundle, component: str) -> int:
        """See `Backend.size`."""
        return self._artifact(bundle, component).bytes

    def load(self, bundle: Bundle, component: str) -> OpenVinoEngine:
        """See `Backend.load`."""
        artifact = self._artifact(bundle, component)
        model, *_ = [bundle.checked_path(file) for file in artifact.files]
        return open_engine(model, component, artifact.bytes, self.precision, self._threads)

    def _artifact(self, bundle: Bundle, component: str) -> Artifact:
        source: Precision = "fp32" if bundle.has(component, "fp32") else self.precision
        return bundle.artifact(component, source)


def open_engine(model: Path, name: str, size: int, precision: Precision, threads: int | None = None) -> OpenVinoEngine:
    """An engine of an ONNX file whose bytes are known to be right.

    Raises:
        BackendError: OpenVINO can't be imported, or can't load it.
    """
    try:
        import openvino  # noqa: PLC0415  # its absence or a broken install is told as a backend's error
    except ImportError as error:
        raise BackendError(f"openvino is installed but can't be imported ({_line(error)})") from error
    options = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads or 0,
    }
    try:
        compiled = openvino.Core().compile_model(str(model), "CPU", options)
    except Exception as error:  # its exceptions share no base but Exception
        raise BackendError(f"openvino: can't load {name!r}: {_line(error)}") from error
    return OpenVinoEngine(compiled, name, size)


class OpenVinoEngine:
    """A compiled model."""

    def __init__(self, compiled: Any, name: str, size: int) -> None:
        self.name = name
        self.bytes = size
        self._compiled = compiled
        self._inputs = [given.names for given in compiled.inputs]  # a value passed through has several
        self._outputs = [output.any_name for output in compiled.outputs]

    def run(self, inputs: Inputs, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Engine.run`."""
        if any(names.isdisjoint(inputs) for names in self._inputs):  # OpenVINO would read whatever memory is there
            raise BackendError(f"openvino: {self.name!r} failed: an input is missing, given were {', '.join(inputs)}")
        try:
            request = self._compiled.create_infer_request()  # one a run: several threads may run at once
            request.infer(arrays(inputs), share_inputs=True)
            # The arrays are the request's memory, and keep it alive.
            return {name: np.array(request.get_tensor(name).data, copy=True) for name in outputs or self._outputs}
        except Exception as error:
            raise BackendError(f"openvino: {self.name!r} failed: {_line(error)}") from error

    def keep(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """See `Engine.keep`."""
        return self.run(inputs)

    def bind(self) -> OpenVinoBinding:
        """See `Engine.bind`."""
        return OpenVinoBinding(self._compiled, self.name)

    def close(self) -> None:
        """See `Engine.close`."""
        self._compiled = None


class OpenVinoBinding:
    """Two requests that take turns: what one leaves in its outputs, the other reads, and nothing is copied."""

    def __init__(self, compiled: Any, name: str) -> None:
        import openvino  # noqa: PLC0415  # the backend has seen that it can be imported

        self._tensor = openvino.Tensor
        self._name = name
        self._next, self._last = compiled.create_infer_request(), compiled.create_infer_request()
        self._held: dict[str, np.ndarray] = {}

    def set(self, name: str, array: np.ndarray) -> None:
        """See `Binding.set`."""
        self._held[name] = np.ascontiguousarray(array)
        self._next.set_tensor(name, self._tensor(self._held[name], shared_memory=array.size > 0))

    def carry(self, output: str, name: str) -> None:
        """See `Binding.carry`."""
        self._next.set_tensor(name, self._last.get_tensor(output))

    def run(self) -> None:
        """See `Binding.run`."""
        try:
            self._next.infer(share_inputs=True)
        except Exception as error:
            raise BackendError(f"openvino: {self._name!r} failed: {_line(error)}") from error
        self._next, self._last = self._last, self._next

    def get(self, output: str) -> np.ndarray:
        """See `Binding.get`."""
        array: np.ndarray = self._last.get_tensor(output).data
        return array


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
