"""Drops sums with zeros that serve to broadcast alone.

transformers' Pix2Struct adds its mask [batch, 1, 1, n] to a position bias of zeros [1, heads, n, n] in every layer: at
full size 200 MB of zeros a layer, and a pass over as many scores.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

_BROADCASTING = {"Add", "Sub", "Mul", "Equal", "Where", "Max", "Min"}


def drop_zero_sums(model: ir.Model) -> None:
    """Replace x + 0 by x where whatever reads the sum would broadcast x itself to the same shape."""
    for node in list(model.graph):
        if (operand := _broadcast_by_zeros(node)) is not None:
            reached = _readers_until_full(node)
            if reached is not None:
                for value in reached:
                    value.shape = operand.shape
                ir.convenience.replace_all_uses_with(node.outputs[0], operand)
    passes.RemoveUnusedNodesPass()(model)


def _broadcast_by_zeros(node: ir.Node) -> ir.Value | None:
    """x, where the node is x + zeros and gives another shape than x's."""
    if node.op_type != "Add" or node.outputs[0].is_graph_output():
        return None
    for zeros, operand in (node.inputs, node.inputs[::-1]):
        if (
            zeros.is_initializer()
            and not operand.is_initializer()
            and zeros.const_value.size > 1
            and _shape(operand) != _shape(node.outputs[0])
            and len(operand.shape or ()) == len(zeros.shape)
            and not np.any(zeros.const_value.numpy())
        ):
            return operand
    return None


def _readers_until_full(node: ir.Node) -> list[ir.Value] | None:
    """What is computed from the sum with scalars alone, if all of it meets a tensor of the sum's shape in the end."""
    full = _shape(node.outputs[0])
    reached: list[ir.Value] = []
    pending = [node.outputs[0]]
    seen = {node.outputs[0]}
    while pending:
        value = pending.pop()
        for reader, _ in value.uses():
            if reader.op_type not in _BROADCASTING:
                return None
            others = [other for other in reader.inputs if other not in seen]
            if any(_shape(other) == full for other in others):
                continue
            output = reader.outputs[0]
            if output.is_graph_output() or any(set(_shape(other)) - {"1"} for other in others):
                return None
            if output not in seen:
                seen.add(output)
                reached.append(output)
                pending.append(output)
    return reached


def _shape(value: ir.Value) -> tuple[str, ...]:
    return tuple(str(length) for length in value.shape) if value.shape is not None else ("?",)
