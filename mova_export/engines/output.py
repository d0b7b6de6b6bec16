"""An engine's bytes on their way out of TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Output:
    """Hands bytes on, and keeps the error of what they were handed to: none may cross the C++ code in between."""

    def __init__(self, write: Callable[[memoryview], None]) -> None:
        self._write = write
        self.failure: OSError | None = None

    def take(self, data: Any) -> int:
        """How many of some bytes were taken: all, or none since something failed."""
        if self.failure:
            return 0
        view = memoryview(data)
        try:
            self._write(view)
        except OSError as error:
            self.failure = error
            return 0
        return view.nbytes


def serialise(library: Any, builder: Any, network: Any, config: Any, output: Output) -> bool:
    """Build a network, and whether that worked.

    Where the library can, an engine is written while it is serialised and never whole in memory: building takes
    twice its size at the peak then, else three times.
    """
    if hasattr(builder, "build_serialized_network_to_stream"):
        return bool(builder.build_serialized_network_to_stream(network, config, _stream(library, output)))
    engine = builder.build_serialized_network(network, config)
    return engine is not None and output.take(engine) > 0


def _stream(library: Any, output: Output) -> Any:
    class Stream(library.IStreamWriter):  # type: ignore[misc]  # the library is loaded at run time
        def __init__(self) -> None:
            library.IStreamWriter.__init__(self)

        def write(self, data: bytes) -> int:
            return output.take(data)

    return Stream()
