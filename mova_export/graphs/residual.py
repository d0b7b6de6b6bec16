"""Finds a graph's residual sums: x + f(x), where f has weights."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from mova_export.graphs.operators import CONTRACTIONS


def residual_sums(graph: ir.Graph, floating: Mapping[ir.Node, list[int]]) -> set[ir.Node]:
    """The Adds of which one operand was computed from the other through a contraction.

    Sums of two products of the same value, as in a rotary embedding or an attention's relative positions, are none.

    Args:
        graph: sorted topologically.
        floating: the indices of each node's floating-point inputs.
    """
    bit: dict[ir.Value, int] = {value: 1 << index for index, value in enumerate(graph.inputs)}
    before: dict[ir.Value, int] = {}  # what a value was computed from, a bit a value
    through: dict[ir.Value, int] = {}  # the same, by way of a contraction
    sums = set()
    for node in graph:
        operands = [node.inputs[index] for index in floating[node] if not node.inputs[index].is_initializer()]
        if node.op_type == "Add" and len(operands) == 2:
            one, other = operands
            if through.get(one, 0) & bit.get(other, 0) or through.get(other, 0) & bit.get(one, 0):
                sums.add(node)
        every, contracted = 0, 0
        for value in operands:
            every |= before.get(value, 0) | bit.get(value, 0)
            contracted |= through.get(value, 0)
        for value in node.outputs:
            bit[value] = 1 << len(bit)
            before[value] = every
            through[value] = every if node.op_type in CONTRACTIONS else contracted
    return sums
