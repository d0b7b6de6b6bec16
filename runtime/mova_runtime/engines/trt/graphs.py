"""CUDA graphs: a run that comes again in the same shapes is captured, and from then on launched in one call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from mova_runtime.engines.cuda.array import DeviceArray
from mova_runtime.engines.cuda.memory import Device
from mova_runtime.engines.protocol import Inputs
from mova_runtime.engines.trt.arena import Arena
from mova_runtime.engines.trt.context import Context
from mova_runtime.engines.trt.signature import Shape, Signature
from mova_runtime.errors import BackendError

LIMIT = 4
"""Graphs of an engine; each holds memory for its inputs and outputs. The one unused longest goes first."""


class Graph:
    """One captured run: a context of its own, and inputs and outputs at addresses that stay."""

    def __init__(self, context: Context, signature: Signature, shapes: Mapping[str, Shape], device: Device) -> None:
        self._context = context  # a captured run uses what its context holds
        self._device = device
        self.inputs = {
            name: DeviceArray.empty(device, shape, signature.inputs[name].dtype) for name, shape in shapes.items()
        }
        self.outputs = context.outputs(shapes)
        self._launchable: Any = None

    def run(self, inputs: Inputs) -> dict[str, DeviceArray]:
        """Queue a run; its outputs, which the next run overwrites."""
        for name, value in inputs.items():
            self.inputs[name].fill(value)
        if self._launchable is None:
            self._context.queue({**self.inputs, **self.outputs}, self._device.stream)
        else:
            self._device.call("cudaGraphLaunch", self._launchable, self._device.stream)
        return self.outputs

    def capture(self) -> None:
        """Capture the run; after a first `run`, as TensorRT demands.

        Raises:
            BackendError: it can't be captured.
        """
        device, stream = self._device, self._device.capturing
        mode = device.cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal  # other threads go on allocating
        device.synchronise()
        device.call("cudaStreamBeginCapture", stream, mode)
        try:
            self._context.queue({**self.inputs, **self.outputs}, stream)
        except BackendError:
            device.cudart.cudaStreamEndCapture(stream)  # whatever it says: the stream must be let go
            raise
        graph = device.call("cudaStreamEndCapture", stream)
        try:
            self._launchable = device.call("cudaGraphInstantiate", graph, 0)
        finally:
            device.call("cudaGraphDestroy", graph)

    def close(self) -> None:
        """Give it back; nothing of it may be running."""
        if self._launchable is not None:
            self._device.call("cudaGraphExecDestroy", self._launchable)
            self._launchable = None


class Graphs:
    """An engine's graphs by its inputs' shapes. Who calls holds the arena's lock."""

    def __init__(self, arena: Arena, signature: Signature, context: Callable[[], Context], limit: int = LIMIT) -> None:
        """`context` makes a new one; a `limit` of 0 captures nothing."""
        self._arena = arena
        self._signature = signature
        self._context = context
        self._limit = limit
        self._generation = arena.generation
        self._seen: OrderedDict[tuple[Shape, ...], Graph | None] = OrderedDict()
        self.refused = ""
        """Why runs of this engine can't be captured."""

    def run(self, shapes: Mapping[str, Shape], inputs: Inputs) -> dict[str, DeviceArray] | None:
        """Queue a run as a graph; None where these shapes have none: seen for the first time, or not to be captured.

        Returns:
            Outputs that the next run in these shapes overwrites.
        """
        if not self._limit or self.refused:
            return None
        if self._generation != self._arena.generation:
            self.close()
            self._generation = self._arena.generation
        key = tuple(shapes.values())
        known = key in self._seen
        graph = self._seen.pop(key, None)
        self._seen[key] = graph  # the latest is last
        if not known:
            self._forget(self._limit)
            return None
        try:
            self._seen[key] = graph = graph or self._captured(shapes, inputs)
        except BackendError as error:  # no room for its buffers, or TensorRT can't: this engine runs without
            self.close()
            self.refused = str(error)
            return None
        return graph.run(inputs)

    def close(self) -> None:
        """Give all graphs back."""
        self._forget(0)

    def _forget(self, keep: int) -> None:
        while len(self._seen) > keep:
            _, graph = self._seen.popitem(last=False)
            if graph:
                self._arena.device.synchronise()
                graph.close()

    def _captured(self, shapes: Mapping[str, Shape], inputs: Inputs) -> Graph:
        graph = Graph(self._context(), self._signature, shapes, self._arena.device)
        graph.run(inputs)
        graph.capture()
        return graph
