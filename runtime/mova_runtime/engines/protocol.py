"""What the runtime asks of a backend. Every backend is one module that meets these protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

    from mova_runtime.bundle import Bundle


class Binding(Protocol):
    """A graph whose outputs may stay where they were computed and become the next run's inputs."""

    def set(self, name: str, array: np.ndarray) -> None:
        """Bind an input to an array of the host; it is read at the next `run`, so it must live until then."""

    def carry(self, output: str, name: str) -> None:
        """Let the next run read as input `name` what the last one left in `output`, without a copy."""

    def run(self) -> None:
        """Run once with what is bound.

        Raises:
            BackendError: the engine failed.
        """

    def get(self, output: str) -> np.ndarray:
        """An output of the last run, on the host."""


class Engine(Protocol):
    """A component in memory. Several threads may run it at once."""

    name: str
    bytes: int
    """Bytes of its files: a first guess at the memory it takes."""

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Host arrays in, host arrays out; all outputs, or those named.

        Raises:
            BackendError: an input does not fit the graph, or the engine failed.
        """

    def bind(self) -> Binding:
        """A binding of its own, for one caller's sequence of runs."""

    def close(self) -> None:
        """Give the memory back; the engine can't be used after."""


class Backend(Protocol):
    """Turns a component of a bundle into an engine."""

    name: str
    precision: str

    def load(self, bundle: Bundle, component: str) -> Engine:
        """Check the component's files and load them.

        Raises:
            IntegrityError: a file is not what the manifest says.
            BundleError: the bundle lacks the component, or this backend's form of it.
            BackendError: the backend can't load it.
        """
