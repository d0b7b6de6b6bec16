"""An execution context: shapes and addresses in, one run queued."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mova_runtime.engines.cuda.arena import Arena
from mova_runtime.engines.cuda.array import DeviceArray
from mova_runtime.engines.trt.messages import why
from mova_runtime.engines.trt.signature import Shape, Signature
from mova_runtime.errors import BackendError


class Context:
    """One of an engine's contexts, computing in the arena. Who calls holds the arena's lock."""

    def __init__(self, trt: Any, create: Callable[[], Any], signature: Signature, arena: Arena) -> None:
        """`create` makes TensorRT's context, without memory of its own.

        Raises:
            BackendError: TensorRT does not make one.
        """
        self._trt = trt
        self._signature = signature
        self._arena = arena
        self._generation = -1
        self._context = create()
        if self._context is None:
            raise BackendError(f"no execution context: {why(trt)}")

    def outputs(self, shapes: Mapping[str, Shape]) -> dict[str, DeviceArray]:
        """Set the inputs' shapes; memory for the outputs they lead to.

        Raises:
            BackendError: TensorRT refuses the shapes, or there is no room.
        """
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise BackendError(f"input {name!r} can't have the shape {list(shape)}: {why(self._trt)}")
        try:
            unknown = self._context.infer_shapes()
        except RuntimeError as error:
            raise BackendError(f"the inputs' shapes don't go together ({error}): {why(self._trt)}") from None
        if unknown:
            raise BackendError(f"the shapes of {', '.join(unknown)} are not known: {why(self._trt)}")
        found = {}
        for name, dtype in self._signature.outputs.items():
            shape = tuple(self._context.get_tensor_shape(name))
            if min(shape, default=0) < 0:
                raise BackendError(f"the shape of output {name!r} depends on values: {list(shape)}")
            found[name] = DeviceArray.empty(self._arena.device, shape, dtype)
        return found

    def queue(self, tensors: Mapping[str, DeviceArray], stream: Any) -> None:
        """Queue a run on inputs and outputs of the shapes last set.

        Raises:
            BackendError: TensorRT does not queue it.
        """
        if self._generation != self._arena.generation and self._arena.bytes:
            self._context.set_device_memory(self._arena.pointer, self._arena.bytes)
        self._generation = self._arena.generation
        for name, array in tensors.items():
            if not self._context.set_tensor_address(name, array.pointer):
                raise BackendError(f"tensor {name!r} can't be at its address: {why(self._trt)}")
        if not self._context.execute_async_v3(int(stream)):
            raise BackendError(why(self._trt))

    def run(self, inputs: Mapping[str, DeviceArray]) -> dict[str, DeviceArray]:
        """Queue a run on the device's stream; its outputs, in memory of their own. Raises like `outputs`, `queue`."""
        outputs = self.outputs({name: array.shape for name, array in inputs.items()})
        self.queue({**inputs, **outputs}, self._arena.device.stream)
        return outputs
