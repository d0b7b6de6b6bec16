"""ONNX Runtime, on the CPU or on an NVIDIA GPU (its CUDA provider)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mova_runtime.bundle.manifest import Precision
from mova_runtime.engines.host import arrays
from mova_runtime.engines.installed import version
from mova_runtime.engines.machine import identity_of
from mova_runtime.engines.protocol import Engine, Inputs
from mova_runtime.errors import BackendError

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle

Device = Literal["cpu", "cuda"]

_PROVIDER = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_OPTIONS: dict[Device, dict[str, str]] = {
    "cpu": {},
    # Float32 is multiplied as float32: rounded to TF32 it would not pass the parity check. Memory is taken as it is
    # needed, not in steps of twice as much.
    "cuda": {"device_id": "0", "use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"},
}
_ERRORS_ONLY = 3


class OrtBackend:
    """Loads ONNX files into sessions of ONNX Runtime."""

    def __init__(self, device: Device, precision: Precision, threads: int | None = None) -> None:
        """`threads` of one engine; None leaves it to ONNX Runtime: one a physical core."""
        self.name = "ort" if device == "cpu" else "ort-cuda"
        self.precision: Precision = precision
        self._device: Device = device
        self._threads = threads

    def identity(self, bundle: Bundle, component: str) -> dict[str, str]:
        """See `Backend.identity`."""
        return {
            "engine": bundle.artifact(component, self.precision).sha256,
            "backend": self.name,
            "precision": self.precision,
            "version": version("onnxruntime-gpu") or version("onnxruntime") or "unknown",
            **identity_of(self._device),
        }

    def size(self, bundle: Bundle, component: str) -> int:
        """See `Backend.size`."""
        return bundle.artifact(component, self.precision).bytes

    def load(self, bundle: Bundle, component: str) -> Engine:
        """See `Backend.load`."""
        artifact = bundle.artifact(component, self.precision)
        model, *_ = [bundle.checked_path(file) for file in artifact.files]
        if self._device == "cpu":
            return open_engine(model, component, artifact.bytes, self._threads)
        from mova_runtime.engines.cuda.memory import device  # noqa: PLC0415
        from mova_runtime.engines.cuda.session import OrtCudaEngine  # noqa: PLC0415

        here = device()  # first: without a GPU, ONNX Runtime's message names libraries
        return OrtCudaEngine(open_session(model, component, self._threads, "cuda"), component, artifact.bytes, here)


def open_engine(model: Path, name: str, size: int, threads: int | None = None) -> OrtEngine:
    """An engine on the CPU, of an ONNX file whose bytes are known to be right. Raises like `open_session`."""
    return OrtEngine(open_session(model, name, threads), name, size)


def open_session(model: Path, name: str, threads: int | None = None, device: Device = "cpu") -> Any:
    """A session of an ONNX file.

    Raises:
        BackendError: ONNX Runtime can't load it, or not on this device.
    """
    try:
        import onnxruntime as ort  # noqa: PLC0415  # its absence or a broken install is told as a backend's error
    except ImportError as error:
        raise BackendError(f"ort: onnxruntime is installed but can't be imported ({_first_line(error)})") from error

    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads or 0
    # Every session has threads of its own, which would go on spinning after a run and slow the next engine's.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    provider = _PROVIDER[device]
    if provider not in ort.get_available_providers():
        raise BackendError(f"ort: this onnxruntime has no {provider}; install the project with its `gpu` extra")
    if device == "cuda" and hasattr(ort, "preload_dlls"):  # CUDA's libraries may have been installed as packages
        with contextlib.redirect_stdout(io.StringIO()):  # prints what it does not find; so does the session, below
            ort.preload_dlls(directory="")
    try:
        session = ort.InferenceSession(str(model), options, providers=[(provider, _OPTIONS[device])])
    except Exception as error:  # its exceptions share no base but Exception
        raise BackendError(f"ort: can't load {name!r}: {_first_line(error)}") from error
    if provider not in session.get_providers():  # it falls back to the CPU with nothing but a warning
        raise BackendError(f"ort: can't load {name!r} on the GPU: ONNX Runtime's CUDA provider did not start")
    return session


class OrtEngine:
    """A session."""

    def __init__(self, session: Any, name: str, size: int) -> None:
        self.name = name
        self.bytes = size
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, inputs: Inputs, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Engine.run`."""
        names = list(outputs or self._outputs)
        try:
            return dict(zip(names, self._session.run(names, arrays(inputs)), strict=True))
        except Exception as error:
            raise failed(self.name, error) from error

    def keep(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """See `Engine.keep`."""
        return self.run(inputs)

    def bind(self) -> OrtBinding:
        """See `Engine.bind`."""
        return OrtBinding(self._session, self.name, self._outputs)

    def close(self) -> None:
        """See `Engine.close`."""
        self._session = None


class OrtBinding:
    """A session's inputs and outputs as values that ONNX Runtime owns."""

    def __init__(self, session: Any, name: str, outputs: Sequence[str], device: str = "cpu") -> None:
        """`device` is where outputs stay, as ONNX Runtime names it."""
        self._session = session
        self._device = device
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
            self._binding.bind_output(output, self._device)
        try:
            self._binding.synchronize_inputs()
            self._session.run_with_iobinding(self._binding)
            self._binding.synchronize_outputs()
        except Exception as error:
            raise failed(self._name, error) from error
        self._values = dict(zip(self._outputs, self._binding.get_outputs(), strict=True))

    def get(self, output: str) -> np.ndarray:
        """See `Binding.get`."""
        array: np.ndarray = self._values[output].numpy()
        return array


def failed(name: str, error: Exception) -> BackendError:
    """What to raise when a run failed."""
    return BackendError(f"ort: {name!r} failed: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
