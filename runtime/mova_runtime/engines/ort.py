"""ONNX Runtime on the CPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mova_runtime.errors import BackendError

if TYPE_CHECKING:
    import numpy as np

    from mova_runtime.bundle import Bundle

_ERRORS_ONLY = 3


def is_installed() -> bool:
    """Whether ONNX Runtime can be imported, without importing it (that takes longer than opening a bundle)."""
    return importlib.util.find_spec("onnxruntime") is not None


class OrtBackend:
    """Loads ONNX files into sessions of ONNX Runtime's CPU provider."""

    name = "ort"
    precision = "fp32"

    def __init__(self, threads: int | None = None) -> None:
        """`threads` of one engine; None leaves it to ONNX Runtime: one a physical core."""
        self._threads = threads

    def load(self, bundle: Bundle, component: str) -> OrtEngine:
        """See `Backend.load`."""
        artifact = bundle.artifact(component, self.precision)
        model, *_ = [bundle.checked_path(file) for file in artifact.files]
        return open_engine(model, component, artifact.bytes, self._threads)


def open_engine(model: Path, name: str, size: int, threads: int | None = None) -> OrtEngine:
    """An engine of an ONNX file whose bytes are known to be right.

    Raises:
        BackendError: ONNX Runtime can't load it.
    """
    try:
        import onnxruntime as ort  # noqa: PLC0415  # slow to import, and not needed to open a bundle
    except ImportError as error:
        raise BackendError(f"ort: onnxruntime is installed but can't be imported ({_first_line(error)})") from error

    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads or 0
    # Every session has threads of its own, which would go on spinning after a run and slow the next engine's.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base but Exception
        raise BackendError(f"ort: can't load {name!r}: {_first_line(error)}") from error
    return OrtEngine(session, name, size)


class OrtEngine:
    """A session."""

    def __init__(self, session: Any, name: str, size: int) -> None:
        self.name = name
        self.bytes = size
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Engine.run`."""
        names = list(outputs or self._outputs)
        try:
            return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))
        except Exception as error:
            raise BackendError(f"ort: {self.name!r} failed: {_first_line(error)}") from error

    def bind(self) -> OrtBinding:
        """See `Engine.bind`."""
        return OrtBinding(self._session, self.name, self._outputs)

    def close(self) -> None:
        """See `Engine.close`."""
        self._session = None


class OrtBinding:
    """A session's inputs and outputs as values that ONNX Runtime owns."""

    def __init__(self, session: Any, name: str, outputs: Sequence[str]) -> None:
        self._session = session
        self._name = name
        self._binding = session.io_binding()
        self._outputs = list(outputs)
        self._values: dict[str, Any] = {}
        self._held: dict[str, np.ndarray] = {}

    def set(self, name: str, array: np.ndarray) -> None:
        """See `Binding.set`."""
        self._held[name] = array
        self._binding.bind_cpu_input(name, array)

    def carry(self, output: str, name: str) -> None:
        """See `Binding.carry`."""
        self._binding.bind_ortvalue_input(name, self._values[output])

    def run(self) -> None:
        """See `Binding.run`."""
        # Bound again each time: an output's shape grows with the cache, and a value being read can't be written.
        for output in self._outputs:
            self._binding.bind_output(output)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise BackendError(f"ort: {self._name!r} failed: {_first_line(error)}") from error
        self._values = dict(zip(self._outputs, self._binding.get_outputs(), strict=True))

    def get(self, output: str) -> np.ndarray:
        """See `Binding.get`."""
        array: np.ndarray = self._values[output].numpy()
        return array


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
