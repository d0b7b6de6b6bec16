"""Gives a graph the types that were planned for it: constants are converted, casts stand where two types meet."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as passes

from mova_export.graphs.operators import floating_inputs, floating_outputs
from mova_export.graphs.policy import Kept, Policy
from mova_export.graphs.precision import Plan, plan_types

NARROW = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}


def to_narrow(model: ir.Model, precision: str, policy: Policy) -> Kept:
    """Make a float32 graph, prepared, a strongly typed one of a lower precision, in place.

    Every node's floating-point inputs are of one type. The graph's inputs and outputs stay float32. Constants are
    converted one at a time when the model is saved.

    Returns:
        What stays float32.
    """
    dtype, opset = NARROW[precision], model.opset_imports[""]
    plan = plan_types(model.graph, dtype, opset, policy)
    nodes = {node: floating_inputs(node, opset) for node in plan.narrow}
    casts = _Casts(model.graph, plan, precision)
    for node in plan.narrow:
        for index in nodes[node]:
            node.replace_input_with(index, casts.typed(node.inputs[index], plan.narrow[node]))
    casts.outputs()
    for node, narrow in plan.narrow.items():
        for value in floating_outputs(node) if narrow else ():
            value.dtype = dtype
    passes.RemoveUnusedNodesPass()(model)
    return Kept(float32=tuple(sorted(plan.kept)))


class _Casts:
    """The one cast of a value, and the one narrow copy of a constant, that all its readers share."""

    def __init__(self, graph: ir.Graph, plan: Plan, precision: str) -> None:
        self._graph = graph
        self._plan = plan
        self._precision = precision
        self._made: dict[ir.Value, ir.Value] = {}
        self._first = graph[0]

    def typed(self, value: ir.Value, narrow: bool) -> ir.Value:
        """The value in the type that a reader wants."""
        if value.is_initializer():
            return self._constant(value) if narrow else value
        if self._plan.is_narrow(value) == narrow:
            return value
        if value not in self._made:
            self._made[value] = self._cast(value, self._name(value, narrow), narrow)
        return self._made[value]

    def outputs(self) -> None:
        """Cast the graph's outputs back to float32, under their own names."""
        for index, value in enumerate(self._graph.outputs):
            if self._plan.is_narrow(value):
                name, cast = value.name, self.typed(value, False)
                value.name, cast.name = self._name(value, True), name
                self._graph.outputs[index] = cast

    def _name(self, value: ir.Value, narrow: bool) -> str:
        return f"{value.name}.{self._precision if narrow else 'fp32'}"

    def _cast(self, value: ir.Value, name: str, narrow: bool) -> ir.Value:
        dtype = self._plan.dtype if narrow else ir.DataType.FLOAT
        node = ir.node("Cast", [value], {"to": dtype.value}, name=f"cast {name}")
        result = node.outputs[0]
        result.name, result.dtype, result.shape = name, dtype, value.shape
        if (producer := value.producer()) is not None:
            self._graph.insert_after(producer, node)
        else:
            self._graph.insert_before(self._first, node)
        return result

    def _constant(self, value: ir.Value) -> ir.Value:
        if value not in self._made:
            tensor, dtype, name = value.const_value, self._plan.dtype, self._name(value, True)
            copy = ir.LazyTensor(
                lambda: ir.Tensor(tensor.numpy().astype(dtype.numpy()), dtype=dtype, name=name),
                dtype=dtype, shape=tensor.shape, name=name,
            )  # fmt: skip
            self._made[value] = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype), const_value=copy)
            self._graph.register_initializer(self._made[value])
        return self._made[value]
