"""Stands in for bfloat16 arithmetic where a processor has none: float32 that is rounded wherever a graph says so.

It is what a matrix unit computes that accumulates in float32, up to the order of its sums.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import onnx_ir.passes.common as passes

from mova_export.graphs.operators import MOVEMENT

_BFLOAT16, _FLOAT = ir.DataType.BFLOAT16, ir.DataType.FLOAT


def write_rounded(typed: Path, path: Path) -> None:
    """Write a graph of float32 operators that computes what a bfloat16 graph says.

    Args:
        typed: the bfloat16 graph's file; its weights are read from where they lie.
        path: where the stand-in goes, in the same folder.
    """
    model = ir.load(typed)
    graph = model.graph
    first = graph[0]
    for weight in [value for value in graph.initializers.values() if value.dtype == _BFLOAT16]:
        graph.insert_before(first, _through(weight, _FLOAT))
    for node in list(graph):
        for value in [value for value in node.outputs if value.dtype == _BFLOAT16]:
            if node.op_type == "Cast":
                graph.insert_after(node, _through(value, _FLOAT))
            else:
                value.dtype = _FLOAT
                if node.op_type not in MOVEMENT:
                    graph.insert_after(node, _through(value, _BFLOAT16, _FLOAT))
    passes.RemoveUnusedNodesPass()(model)
    ir.save(model, path)


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
