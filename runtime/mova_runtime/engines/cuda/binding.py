"""A run's outputs stay on the GPU, each run's in memory of their own; those carried are the next run's inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mova_runtime.engines.cuda.array import DeviceArray
from mova_runtime.engines.protocol import Array, Inputs
from mova_runtime.errors import BackendError


class DeviceBinding:
    """See `mova_runtime.engines.protocol.Binding`."""

    def __init__(self, step: Callable[[Inputs], Mapping[str, DeviceArray]]) -> None:
        """`step` runs the engine once; its outputs are in memory of their own."""
        self._step: Callable[[Inputs], Mapping[str, DeviceArray]] | None = step
        self._inputs: dict[str, Array] = {}
        self._outputs: Mapping[str, DeviceArray] = {}

    def set(self, name: str, array: np.ndarray) -> None:
        """See `Binding.set`."""
        self._inputs[name] = array

    def carry(self, output: str, name: str) -> None:
        """See `Binding.carry`."""
        self._inputs[name] = self._outputs[output]

    def share(self, output: str, name: str, array: np.ndarray) -> None:
        """See `Binding.share`."""
        raise BackendError(f"{output!r} is not written where {name!r} is: on a GPU the cache grows")

    def run(self) -> None:
        """See `Binding.run`."""
        if self._step is None:
            raise BackendError("the engine was closed")
        self._outputs = self._step(self._inputs)

    def get(self, output: str) -> np.ndarray:
        """See `Binding.get`."""
        return self._outputs[output].numpy()

    def close(self) -> None:
        """See `Binding.close`."""
        self._step = None
        self._inputs, self._outputs = {}, {}
