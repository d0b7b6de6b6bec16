"""Brings a float32 graph into the form that the passes for lower precisions read."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as passes


def prepare(model: ir.Model) -> None:
    """In place: constants become initializers, every value gets its dtype, casts to the type at hand go."""
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    if any(value.dtype is None for node in model.graph for value in node.outputs):
        passes.ShapeInferencePass()(model)
    for node in list(model.graph):
        idle = node.op_type == "Cast" and node.inputs[0].dtype == node.outputs[0].dtype
        if idle and not node.outputs[0].is_graph_output():
            ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
            model.graph.remove(node, safe=True)
