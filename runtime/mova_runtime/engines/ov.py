"""OpenVINO on the CPU: float32, or bfloat16 and float16 where the processor multiplies them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mova_runtime.bundle.manifest import Artifact, Precision
from mova_runtime.cache_folder import cache_folder
from mova_runtime.engines.failure import failure
from mova_runtime.engines.host import arrays
from mova_runtime.engines.installed import version
from mova_runtime.engines.machine import identity_of
from mova_runtime.engines.memory import Memory, Need
from mova_runtime.engines.needs.guess import working
from mova_runtime.engines.pages import let_go, ready
from mova_runtime.engines.protocol import Cache, Inputs
from mova_runtime.engines.release import release
from mova_runtime.errors import BackendError

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}

_RESIDENT, _ROUNDED, _LOADING = 2.3, 1.4, 1.8
"""Memory beside a float32 file's bytes, measured on DINOv2-giant: an engine's, the mapped file included; that of one in
fewer bits, which rounds the weights, keeps them so and packed, and needs the file no more; while it loads."""


class OpenVinoBackend:
    """Compiles ONNX files for the CPU.

    It computes in the precision it is asked for whatever the graph's, and decides itself what stays float32, so one
    float32 graph serves every precision; a graph of the precision itself is taken where there is no float32 one.
    """

    name = "openvino"

    def __init__(self, precision: Precision, threads: int | None = None, *, keep_compiled: bool = False) -> None:
        """`threads` of one engine; None leaves it to OpenVINO: one a physical core. `keep_compiled`: see `make`."""
        self.precision: Precision = precision
        self._threads = threads
        self._keep_compiled = keep_compiled

    def identity(self, bundle: Bundle, component: str) -> dict[str, str]:
        """See `Backend.identity`."""
        return {
            "engine": self._artifact(bundle, component).sha256,
            "backend": self.name,
            "precision": self.precision,
            "version": version("openvino") or "unknown",
            **identity_of("cpu"),
        }

    def need(self, bundle: Bundle, component: str) -> Need:
        """See `Backend.need`."""
        size = self._artifact(bundle, component).bytes
        run = working(bundle, component, size)
        kept = _RESIDENT if self.precision == "fp32" else _ROUNDED
        return Need(Memory(int(kept * size)), Memory(run), Memory(int(_LOADING * size)))

    def start(self) -> None:
        """See `Backend.start`."""
        _core().get_property("CPU", "FULL_DEVICE_NAME")  # which loads the plugin

    def load(self, bundle: Bundle, component: str) -> OpenVinoEngine:
        """See `Backend.load`."""
        artifact = self._artifact(bundle, component)
        files = ready(bundle, artifact.files_of("growing"))
        kept = self._folder(bundle, component) if self._keep_compiled else None
        engine = open_engine(files[0], component, artifact.bytes, self.precision, self._threads, kept)
        if self.precision != "fp32":  # its weights were copied; the file stays mapped as long as the engine is there
            let_go(files)
        return engine

    def _folder(self, bundle: Bundle, component: str) -> Path:
        """Where the compiled component is kept: OpenVINO looks at the graph's age, and not at its weights'."""
        told = json.dumps({**self.identity(bundle, component), "threads": str(self._threads)}, sort_keys=True)
        return cache_folder() / "openvino" / hashlib.sha256(told.encode()).hexdigest()[:32]

    def _artifact(self, bundle: Bundle, component: str) -> Artifact:
        source: Precision = "fp32" if bundle.has(component, "fp32") else self.precision
        return bundle.artifact(component, source)


def open_engine(
    model: Path, name: str, size: int, precision: Precision, threads: int | None = None, kept: Path | None = None
) -> OpenVinoEngine:
    """An engine of an ONNX file whose bytes are known to be right.

    Args:
        model: the file.
        name: of the component, for messages.
        size: bytes of its files.
        precision: to compute in.
        threads: None leaves it to OpenVINO: one a physical core.
        kept: folder of what was compiled of this very file, with these options; None compiles anew.

    Raises:
        OutOfMemoryError: there is no room for it.
        BackendError: OpenVINO can't be imported, or can't load it.
    """
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads or 0,
    }
    core = _core()
    if kept:
        # Optimised for speed, what is kept is as large as the weights; else it is small, and hardly faster than none.
        cached = {**options, "CACHE_DIR": str(kept), "CACHE_MODE": "OPTIMIZE_SPEED"}
        with contextlib.suppress(Exception):  # a folder that can't be written, or what is in it: compiled then
            return OpenVinoEngine(core.compile_model(str(model), "CPU", cached), name)
    try:
        compiled = core.compile_model(str(model), "CPU", options)
    except Exception as error:  # its exceptions share no base but Exception
        raise failure(f"openvino: can't load {name!r}", error) from error
    return OpenVinoEngine(compiled, name)


def _core() -> Any:
    """OpenVINO.

    Raises:
        BackendError: it can't be imported, or does not start.
    """
    try:
        import openvino  # noqa: PLC0415  # its absence or a broken install is told as a backend's error
    except ImportError as error:
        raise BackendError(f"openvino is installed but can't be imported ({error})") from error
    try:
        return openvino.Core()
    except Exception as error:  # its exceptions share no base but Exception
        raise failure("openvino does not start", error) from error


class OpenVinoEngine:
    """A compiled model."""

    cache: Cache = "growing"

    def __init__(self, compiled: Any, name: str) -> None:
        self.name = name
        self.least = Memory()
        self._compiled = compiled
        self._bindings: weakref.WeakSet[OpenVinoBinding] = weakref.WeakSet()
        self._inputs = [given.names for given in compiled.inputs]  # a value passed through has several
        self._outputs = [output.any_name for output in compiled.outputs]

    def run(self, inputs: Inputs, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Engine.run`."""
        compiled = _opened(self.name, self._compiled)
        if any(names.isdisjoint(inputs) for names in self._inputs):  # OpenVINO would read whatever memory is there
            raise BackendError(f"openvino: {self.name!r} failed: an input is missing, given were {', '.join(inputs)}")
        try:
            request = compiled.create_infer_request()  # one a run: several threads may run at once
            request.infer(arrays(inputs), share_inputs=True)
            # Not copied: the request is this run's own, and an output's memory outlives it and the engine.
            return {name: request.get_tensor(name).data for name in outputs or self._outputs}
        except Exception as error:
            raise failure(f"openvino: {self.name!r} failed", error) from error

    def keep(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """See `Engine.keep`."""
        return self.run(inputs)

    def bind(self) -> OpenVinoBinding:
        """See `Engine.bind`."""
        binding = OpenVinoBinding(_opened(self.name, self._compiled), self.name)
        self._bindings.add(binding)
        return binding

    def close(self) -> None:
        """See `Engine.close`."""
        if self._compiled is None:
            return
        self._compiled = None
        for binding in tuple(self._bindings):
            binding.close()
        release()


class OpenVinoBinding:
    """Two requests that take turns: what one leaves in its outputs, the other reads, and nothing is copied."""

    def __init__(self, compiled: Any, name: str) -> None:
        import openvino  # noqa: PLC0415  # the backend has seen that it can be imported

        self._tensor = openvino.Tensor
        self._name = name
        self._next: Any = compiled.create_infer_request()
        self._last: Any = compiled.create_infer_request()
        self._held: dict[str, np.ndarray] = {}

    def set(self, name: str, array: np.ndarray) -> None:
        """See `Binding.set`."""
        self._held[name] = np.ascontiguousarray(array)
        self._next.set_tensor(name, self._tensor(self._held[name], shared_memory=array.size > 0))

    def carry(self, output: str, name: str) -> None:
        """See `Binding.carry`."""
        self._next.set_tensor(name, self._last.get_tensor(output))

    def share(self, output: str, name: str, array: np.ndarray) -> None:
        """See `Binding.share`."""
        raise BackendError(f"openvino: {self._name!r}: {output!r} is not written where {name!r} is: its cache grows")

    def run(self) -> None:
        """See `Binding.run`."""
        request = _opened(self._name, self._next)
        try:
            request.infer(share_inputs=True)
        except Exception as error:
            raise failure(f"openvino: {self._name!r} failed", error) from error
        self._next, self._last = self._last, self._next

    def get(self, output: str) -> np.ndarray:
        """See `Binding.get`."""
        array: np.ndarray = self._last.get_tensor(output).data
        return array

    def close(self) -> None:
        """See `Binding.close`."""
        self._next = self._last = None
        self._held.clear()


def _opened(name: str, there: Any) -> Any:
    """What a closed engine has let go of.

    Raises:
        BackendError: it was closed.
    """
    if there is None:
        raise BackendError(f"openvino: {name!r} failed: it was closed")
    return there
