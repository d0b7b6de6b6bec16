"""A run that comes again in the same shapes, captured with inputs and outputs at addresses that stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mova_runtime.engines.cuda.arena import Arena
from mova_runtime.engines.cuda.array import DeviceArray
from mova_runtime.engines.cuda.graphs import LIMIT, Captured, Recurring
from mova_runtime.engines.cuda.memory import Device
from mova_runtime.engines.protocol import Inputs
from mova_runtime.engines.trt.context import Context
from mova_runtime.engines.trt.signature import Shape, Signature


class Graph:
    """One captured run: a context of its own, and memory for its inputs and outputs."""

    def __init__(
        self, context: Context, signature: Signature, shapes: Mapping[str, Shape], device: Device, first: Inputs
    ) -> None:
        """`first`: inputs to run on once, as TensorRT demands before a run is captured.

        Raises:
            BackendError: there is no room, or the run can't be captured.
        """
        self._context = context  # a captured run uses what its context holds
        self._inputs = {
            name: DeviceArray.empty(device, shape, signature.inputs[name].dtype) for name, shape in shapes.items()
        }
        self._outputs = context.outputs(shapes)
        self._fill(first)
        context.queue({**self._inputs, **self._outputs}, device.stream)
        self._captured = Captured(device, lambda stream: context.queue({**self._inputs, **self._outputs}, stream))

    def run(self, inputs: Inputs) -> dict[str, DeviceArray]:
        """Queue a run; its outputs, which the next run overwrites."""
        self._fill(inputs)
        self._captured.launch()
        return self._outputs

    def close(self) -> None:
        """Give it back; nothing of it may be running."""
        self._captured.close()

    def _fill(self, inputs: Inputs) -> None:
        for name, value in inputs.items():
            self._inputs[name].fill(value)


class Graphs:
    """An engine's graphs by its inputs' shapes. Who calls holds the arena's lock."""

    def __init__(self, arena: Arena, signature: Signature, context: Callable[[], Context], limit: int = LIMIT) -> None:
        """`context` makes a new one; a `limit` of 0 captures nothing."""
        self._device = arena.device
        self._signature = signature
        self._context = context
        self._graphs: Recurring[Graph] = Recurring(arena, limit)

    @property
    def refused(self) -> str:
        """Why runs of this engine can't be captured; empty if they can."""
        return self._graphs.refused

    def run(self, shapes: Mapping[str, Shape], inputs: Inputs) -> dict[str, DeviceArray] | None:
        """Queue a run as a graph; None where these shapes have none.

        Returns:
            Outputs that the next run in these shapes overwrites.
        """

        def capture() -> Graph:
            return Graph(self._context(), self._signature, shapes, self._device, inputs)

        graph = self._graphs.get(tuple(shapes.values()), capture)
        return graph.run(inputs) if graph else None

    def close(self) -> None:
        """Give all graphs back."""
        self._graphs.close()
