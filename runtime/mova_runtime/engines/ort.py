"""ONNX Runtime, on the CPU or on an NVIDIA GPU (its CUDA provider)."""

from __future__ import annotations

import contextlib
import io
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mova_runtime.bundle.manifest import LANGUAGE_MODEL, File, Precision
from mova_runtime.engines.failure import failure
from mova_runtime.engines.host import arrays
from mova_runtime.engines.installed import version
from mova_runtime.engines.machine import identity_of
from mova_runtime.engines.memory import Memory, Need
from mova_runtime.engines.needs.guess import working
from mova_runtime.engines.nvidia import gpu
from mova_runtime.engines.ort_binding import DTYPES, OrtBinding, failed, opened
from mova_runtime.engines.pages import ready
from mova_runtime.engines.protocol import Cache, Engine, GpuMemory, Inputs
from mova_runtime.engines.release import release
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

_FEW_TOKENS = ("text", LANGUAGE_MODEL)


def prepacks(component: str, precision: Precision) -> bool:
    """Whether a component's weights are copied on the CPU, in the order that products read them in.

    Mapped weights cost no memory but the file's pages, and no time: DINOv2-giant loads in 0.3 s instead of 16 s, and
    runs as fast. Where few tokens are read, products take longer. A Llama with 393 MB of float32 weights, on one core
    of an EPYC, in CPU seconds, packed and mapped: load 0.70 and 0.25, 512 tokens 1.3 and 1.5, 20 tokens 0.065 and 0.13,
    a step of decoding 0.033 and 0.037. In 8 and 4 bits everything is packed: 512 tokens take 1.3 and 2.0 of 8 bits, a
    step 0.017 and 0.37.
    """
    return component in _FEW_TOKENS or precision in ("int8", "int4")


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

    def need(self, bundle: Bundle, component: str) -> Need:
        """See `Backend.need`."""
        size = sum(file.bytes for file in self._files(bundle, component))
        run = working(bundle, component, size, self._cache(bundle, component))
        if self._device == "cuda":  # the file is mapped while it is copied
            return Need(Memory(0, size), Memory(0, run), Memory(size, size))
        return Need(Memory(size), Memory(run), Memory(size))  # a weight is mapped no longer when it is packed

    def start(self) -> GpuMemory | None:
        """See `Backend.start`."""
        _library()
        if self._device == "cpu":
            return None
        from mova_runtime.engines.cuda.memory import device  # noqa: PLC0415

        here = device()
        return None if _shares_memory() else here

    def load(self, bundle: Bundle, component: str) -> Engine:
        """See `Backend.load`."""
        files = self._files(bundle, component)
        size = sum(file.bytes for file in files)
        model, *_ = ready(bundle, files)
        if self._device == "cpu":
            packed = prepacks(component, self.precision)
            cache = self._cache(bundle, component)
            return open_engine(model, component, size, self._threads, prepack=packed, cache=cache)
        from mova_runtime.engines.cuda.memory import device  # noqa: PLC0415
        from mova_runtime.engines.cuda.session import OrtCudaEngine  # noqa: PLC0415

        here = device()  # first: without a GPU, ONNX Runtime's message names libraries
        return OrtCudaEngine(open_session(model, component, self._threads, "cuda"), component, size, here)

    def _files(self, bundle: Bundle, component: str) -> tuple[File, ...]:
        """The graph that is opened, and its weights."""
        return bundle.artifact(component, self.precision).files_of(self._cache(bundle, component))

    def _cache(self, bundle: Bundle, component: str) -> Cache:
        in_place = bundle.artifact(component, self.precision).in_place
        return "shared" if in_place and self._device == "cpu" else "growing"


def open_engine(
    model: Path,
    name: str,
    size: int,
    threads: int | None = None,
    *,
    prepack: bool = False,
    cache: Cache = "growing",
) -> OrtEngine:
    """An engine on the CPU, of an ONNX file whose bytes are known to be right.

    Args:
        model: the file.
        name: of the component, for messages.
        size: bytes of the files, which are mapped.
        threads: None leaves it to ONNX Runtime: one a physical core.
        prepack: see `prepacks`.
        cache: "shared" if the file is that of a language model that keeps its cache in place.

    Raises:
        OutOfMemoryError, BackendError: as `open_session`.
    """
    session = open_session(model, name, threads, prepack=prepack)
    if cache == "growing":
        return OrtEngine(session, name, size)
    from mova_runtime.engines.in_place import InPlaceEngine  # noqa: PLC0415  # which is made of this one

    return InPlaceEngine(session, name, size)


def open_session(
    model: Path, name: str, threads: int | None = None, device: Device = "cpu", *, prepack: bool = True
) -> Any:
    """A session of an ONNX file. For `prepack` see `prepacks`; on a GPU it makes no difference.

    Raises:
        OutOfMemoryError: there is no room for it.
        BackendError: ONNX Runtime can't load it, or not on this device.
    """
    ort = _library()
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads or 0
    if device == "cpu":
        # A plan of where activations go is remembered with one block of memory for all of them, which is never shrunk.
        options.enable_mem_pattern = False
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
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
        raise failure(f"ort: can't load {name!r}", error) from error
    if provider not in session.get_providers():  # it falls back to the CPU with nothing but a warning
        raise BackendError(f"ort: can't load {name!r} on the GPU: ONNX Runtime's CUDA provider did not start")
    return session


class OrtEngine:
    """A session."""

    cache: Cache = "growing"

    def __init__(self, session: Any, name: str, size: int) -> None:
        """`size`: bytes of its files."""
        self.name = name
        self.least = Memory(size)
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._bindings: weakref.WeakSet[OrtBinding] = weakref.WeakSet()
        self._options = _shrinking()

    def run(self, inputs: Inputs, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Engine.run`."""
        session = opened(self.name, self._session)
        names = list(outputs or self._outputs)
        try:
            return dict(zip(names, session.run(names, arrays(inputs), self._options), strict=True))
        except Exception as error:
            raise failed(self.name, error) from error

    def keep(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """See `Engine.keep`."""
        return self.run(inputs)

    def bind(self) -> OrtBinding:
        """See `Engine.bind`."""
        session = opened(self.name, self._session)
        binding = OrtBinding(session, self.name, self._outputs, tidy=lambda: shrink(session))
        self._bindings.add(binding)
        return binding

    def close(self) -> None:
        """See `Engine.close`."""
        if self._session is None:
            return
        self._session = None
        for binding in tuple(self._bindings):
            binding.close()
        release()


def _library() -> Any:
    try:
        import onnxruntime as ort  # noqa: PLC0415  # its absence or a broken install is told as a backend's error
    except ImportError as error:
        raise BackendError(f"ort: onnxruntime is installed but can't be imported ({_first_line(error)})") from error
    return ort


def _shrinking() -> Any:
    """Options of a run after which its memory goes back: else each engine would keep what its largest run took."""
    options = _library().RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def shrink(session: Any) -> None:
    """Give back what earlier runs took: after every step of decoding this would cost a quarter of the step.

    ONNX Runtime does it at the end of a run only, so one is begun, and ended before its first operator.
    """
    options = _shrinking()
    options.terminate = True
    inputs = {
        given.name: np.zeros([side if isinstance(side, int) else 1 for side in given.shape], DTYPES[given.type])
        for given in session.get_inputs()
    }
    with contextlib.suppress(Exception):  # it says that it was ended
        session.run(None, inputs, options)
    release()


def _shares_memory() -> bool:
    found = gpu()
    return found is not None and found.shares_memory


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
