"""What one process measures: a component in one form, with the bundle's probe as its input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mova_export.bench.files import engine_files
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.arrays import load_array
from mova_runtime.bundle.manifest import LANGUAGE_MODEL, Precision
from mova_runtime.engines.backends import make
from mova_runtime.engines.choice import Choice

if TYPE_CHECKING:
    import numpy as np

    from mova_runtime.engines.protocol import Array, Binding, Engine, GpuMemory


class Subject(Protocol):
    """A component that can be loaded and run, several times. Its first load may be on its way while others run."""

    gpu: GpuMemory | None
    """The memory of the GPU it computes on, after `start`; None where it is the host's."""

    def start(self) -> None:
        """Import and start what it takes, check its files, read the probe: everything that is nobody's load.

        Raises:
            MovaError: it can't be.
        """

    def files(self) -> list[Path]:
        """What a load reads from the disk; none where nothing is read."""

    def load(self) -> None:
        """Get ready to run. Raises like `start`, and whatever a library raises."""

    def run(self) -> None:
        """Run on the probe's inputs, until it is done."""

    def outputs(self) -> Mapping[str, np.ndarray]:
        """What the last run left, by the probe's names."""

    def close(self) -> None:
        """Give back what `load` took."""


class EngineSubject:
    """An engine of the runtime's, run as requests run it."""

    def __init__(self, bundle: Bundle, component: str, backend: str, precision: Precision, threads: int) -> None:
        self.gpu: GpuMemory | None = None
        self._bundle, self._component = bundle, component
        self._files = engine_files(bundle, component, backend, precision)
        self._backend = make(Choice(backend, precision, "as asked"), threads)
        self._inputs: dict[str, np.ndarray] = {}
        self._engine: Engine | None = None
        self._binding: Binding | None = None
        self._left: Mapping[str, Array] = {}

    def start(self) -> None:
        """See `Subject.start`."""
        for file in self._files:
            self._bundle.checked_path(file)
        self._inputs = probe_inputs(self._bundle, self._component)
        self.gpu = self._backend.start()

    def files(self) -> list[Path]:
        """See `Subject.files`."""
        return [self._bundle.path(file) for file in self._files]

    def load(self) -> None:
        """See `Subject.load`."""
        self._engine = self._backend.load(self._bundle, self._component)
        if self._component == LANGUAGE_MODEL and self._engine.cache == "growing":
            self._binding = self._engine.bind()

    def run(self) -> None:
        """See `Subject.run`."""
        assert self._engine, "it was loaded"
        self._left = {}
        if self._binding:
            for name, array in self._inputs.items():
                self._binding.set(name, array)
            self._binding.run()
        else:
            self._left = self._engine.keep(self._inputs)

    def outputs(self) -> dict[str, np.ndarray]:
        """See `Subject.outputs`."""
        from mova_runtime.engines.host import on_host  # noqa: PLC0415  # imports numpy

        names = list(self._bundle.component(self._component).probe.outputs)
        if self._binding:
            return {name: self._binding.get(name).copy() for name in names}
        return {name: on_host(self._left[name]) for name in names}

    def close(self) -> None:
        """See `Subject.close`."""
        self._left = {}
        self._binding = None
        if self._engine:
            self._engine.close()
        self._engine = None


def probe_inputs(bundle: Bundle, component: str) -> dict[str, np.ndarray]:
    """The inputs of a component's first probe."""
    probe = bundle.component(component).probe
    return {name: load_array(bundle.checked_path(file)) for name, file in probe.inputs.items()}


def difference(bundle: Bundle, component: str, found: Mapping[str, Any]) -> list[Any]:
    """How far each output of a run on the probe is from the stored one: `Difference`s."""
    from mova_runtime.parity.compare import compare  # noqa: PLC0415  # imports numpy

    probe = bundle.component(component).probe
    return [compare(name, found[name], load_array(bundle.checked_path(file))) for name, file in probe.outputs.items()]
