"""What the runtime asks of a backend. Every backend is one module or folder that meets these protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from mova_runtime.bundle.manifest import Precision

if TYPE_CHECKING:
    import numpy as np

    from mova_runtime.bundle import Bundle


class DeviceArray(Protocol):
    """An array in a GPU's memory, where an engine left it. Exchanges through DLPack."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of its axes."""

    def __getitem__(self, index: int) -> DeviceArray:
        """One entry of the first axis, without a copy."""

    def numpy(self) -> np.ndarray:
        """A copy on the host."""

    def __dlpack__(self, *, stream: Any = None) -> Any:
        """A DLPack capsule."""

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's device type and number."""


Array: TypeAlias = "np.ndarray | DeviceArray"

Inputs: TypeAlias = "Mapping[str, Array | Sequence[Array]]"
"""An input is an array, or a sequence of arrays, not empty, to be stacked along a new first axis."""


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

    def run(self, inputs: Inputs, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Arrays in, arrays of the host out; all outputs, or those named.

        Raises:
            BackendError: an input does not fit the graph, or the engine failed.
        """

    def keep(self, inputs: Inputs) -> Mapping[str, Array]:
        """Like `run`, with all outputs left where they were computed: on the host, or in the GPU's memory."""

    def bind(self) -> Binding:
        """A binding of its own, for one caller's sequence of runs."""

    def close(self) -> None:
        """Give the memory back; the engine can't be used after."""


class Backend(Protocol):
    """Turns a component of a bundle into an engine."""

    name: str
    precision: Precision

    def identity(self, bundle: Bundle, component: str) -> dict[str, str]:
        """What the engine's results depend on: its bytes' hash, backend, precision, library version, device, driver.

        Raises:
            BundleError, EngineKeyError: as `load`; nothing is loaded.
        """

    def size(self, bundle: Bundle, component: str) -> int:
        """Bytes of the engine's files: a first guess at the memory it takes. Raises like `identity`."""

    def load(self, bundle: Bundle, component: str) -> Engine:
        """Check the component's files and load them.

        Raises:
            IntegrityError: a file is not what the manifest says.
            BundleError: the bundle lacks the component, or this precision of it.
            EngineKeyError: no engine was built for this machine.
            BackendError: the backend can't load it.
        """
