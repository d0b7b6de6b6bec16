"""What the runtime asks of a backend. Every backend is one module or folder that meets these protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from mova_runtime.bundle.manifest import Precision

if TYPE_CHECKING:
    import numpy as np

    from mova_runtime.bundle import Bundle
    from mova_runtime.engines.memory import Memory, Need


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


Cache: TypeAlias = Literal["growing", "shared"]
"""Where a language model's engine leaves keys and values: after a run in new arrays, longer than those it read; or in
the arrays of whoever runs it, behind those that are there."""


class Binding(Protocol):
    """A graph whose outputs may stay where they were computed and become the next run's inputs."""

    def set(self, name: str, array: np.ndarray) -> None:
        """Bind an input to an array of the host; it is read at the next `run`, so it must live until then."""

    def carry(self, output: str, name: str) -> None:
        """Let the next run read as input `name` what the last one left in `output`, without a copy."""

    def share(self, output: str, name: str, array: np.ndarray) -> None:
        """Let input `name` and output `output` be `array`'s memory, in every run from now on; nothing is copied.

        For engines whose cache is "shared".

        Raises:
            BackendError: the engine's cache grows, or the array can't be written where it is.
        """

    def run(self) -> None:
        """Run once with what is bound.

        Raises:
            BackendError: the engine failed.
        """

    def get(self, output: str) -> np.ndarray:
        """An output of the last run, on the host."""

    def close(self) -> None:
        """Let go of the engine and of what is bound. An engine closes its bindings when it is closed."""


class Engine(Protocol):
    """A component in memory. Several threads may run it at once."""

    name: str
    least: Memory
    """What it takes for certain, now or once all of it was used, however little was measured."""

    cache: Cache
    """"growing" for whatever decodes nothing. With "shared", `run` and `keep` still take and give a cache that grows;
    what a binding is given then is told in `engines/in_place.py`."""

    def run(self, inputs: Inputs, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Arrays in, arrays of the host out; all outputs, or those named.

        Raises:
            BackendError: an input does not fit the graph, the engine failed, or it was closed.
            OutOfMemoryError: memory ran out.
        """

    def keep(self, inputs: Inputs) -> Mapping[str, Array]:
        """Like `run`, with all outputs left where they were computed: on the host, or in the GPU's memory."""

    def bind(self) -> Binding:
        """A binding of its own, for one caller's sequence of runs."""

    def close(self) -> None:
        """Give the memory back to the system, whoever still refers to the engine; it can't be used after."""


class GpuMemory(Protocol):
    """The memory of the GPU that engines are on."""

    def used(self) -> int:
        """Bytes in use, by anybody.

        Raises:
            BackendError: the GPU does not tell.
        """

    def trim(self) -> None:
        """Give back what was freed. Raises like `used`."""


class Backend(Protocol):
    """Turns a component of a bundle into an engine."""

    name: str
    precision: Precision

    def identity(self, bundle: Bundle, component: str) -> dict[str, str]:
        """What the engine's results depend on: its bytes' hash, backend, precision, library version, device, driver.

        Raises:
            BundleError, EngineKeyError: as `load`; nothing is loaded.
        """

    def need(self, bundle: Bundle, component: str) -> Need:
        """A first guess at the memory the engine takes, from the sizes of its files. Raises like `identity`."""

    def start(self) -> GpuMemory | None:
        """Import and start the library, so that memory taken afterwards is an engine's own.

        Returns:
            The memory of the GPU that engines are on; None for engines on the host, and where the GPU has no memory of
            its own.

        Raises:
            BackendError: it can't be imported or does not start.
        """

    def load(self, bundle: Bundle, component: str) -> Engine:
        """Check the component's files and load them.

        Raises:
            IntegrityError: a file is not what the manifest says.
            BundleError: the bundle lacks the component, or this precision of it.
            EngineKeyError: no engine was built for this machine.
            OutOfMemoryError: there is no room for it.
            BackendError: the backend can't load it.
        """
