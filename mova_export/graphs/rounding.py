"""Stands in for bfloat16 arithmetic where a processor has none: float32 that is rounded wherever a graph says so.

It is what a matrix unit computes that accumulates in float32, up to the order of its sums.
"""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as passes

from mova_export.graphs.operators import MOVEMENT

_BFLOAT16, _FLOAT = ir.DataType.BFLOAT16, ir.DataType.FLOAT


def rounded(model: ir.Model) -> ir.Model:
    """Make a bfloat16 graph one of float32 operators that computes what it says, in place."""
    graph = model.graph
    for node in list(graph):
        for weight in [value for value in node.inputs if value is not None and value.is_initializer()]:
            if weight.dtype == _BFLOAT16:  # cast where it is first read, so that it stays with its readers
                graph.insert_before(node, _through(weight, _FLOAT))
    for node in list(graph):
        for value in [value for value in node.outputs if value.dtype == _BFLOAT16]:
            if node.op_type == "Cast":
                graph.insert_after(node, _through(value, _FLOAT))
            else:
                value.dtype = _FLOAT
                if node.op_type not in MOVEMENT:
                    graph.insert_after(node, _through(value, _BFLOAT16, _FLOAT))
    passes.RemoveUnusedNodesPass()(model)
    return model


def _through(value: ir.Value, *dtypes: ir.DataType) -> list[ir.Node]:
    """Casts one after the other, whose result all that read the value now read instead."""
    nodes: list[ir.Node] = []
    for dtype in dtypes:
        node = ir.node("Cast", [nodes[-1].outputs[0] if nodes else value], {"to": dtype.value})
        result = node.outputs[0]
        result.name, result.dtype, result.shape = f"{value.name}.{dtype.name.lower()}", dtype, value.shape
        nodes.append(node)
    ir.convenience.replace_all_uses_with(value, nodes[-1].outputs[0])
    nodes[0].replace_input_with(0, value)
    return nodes
