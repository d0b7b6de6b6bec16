"""What ONNX operators do with floating-point types: which may compute in a narrow one, and which inputs share it."""

from __future__ import annotations

import functools

import onnx.defs
import onnx_ir as ir

CONTRACTIONS = {"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"}
"""Sums of products, what matrix units are for: narrow operands, accumulated in float32."""

ELEMENTWISE = {
    "Abs", "Add", "AveragePool", "Clip", "Div", "Equal", "Erf", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid",
    "HardSwish", "Less", "LessOrEqual", "Max", "Min", "Mul", "Neg", "PRelu", "ReduceMax", "ReduceMin", "Relu", "Resize",
    "ScatterElements", "Sigmoid", "Sub", "Tanh", "TopK", "Where",
}  # fmt: skip
"""Round once a value, or not at all; computed in the widest type of their operands, as torch.autocast promotes."""

MOVEMENT = {
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "MaxPool", "Pad",
    "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Move values without computing."""

_INDIFFERENT = {"Shape", "Size", "Cast"}

WHY = {
    "Softmax": "softmax",
    "LayerNormalization": "norms",
    "Sqrt": "norms",
    "Reciprocal": "norms",
    "ReduceMean": "means",
    "ReduceSum": "sums",
    "Pow": "powers",
    "Sin": "positions",
    "Cos": "positions",
}
"""What a person calls the operators that lose too much in a narrow type; others go by their own name."""

FLOAT32_TYPE = "tensor(float)"


def takes(node: ir.Node, dtype: ir.DataType, opset: int) -> bool:
    """Whether the operator set defines the node for a floating-point type."""
    schema = _schema(node.op_type, opset)
    variable = _variable(node, schema)
    allowed = next((c.allowed_type_strs for c in schema.type_constraints if c.type_param_str == variable), ())
    return f"tensor({dtype.name.lower()})" in allowed


def is_indifferent(node: ir.Node) -> bool:
    """Whether the node takes any floating-point type and its output does not depend on which."""
    return node.op_type in _INDIFFERENT


def floating_inputs(node: ir.Node, opset: int) -> list[int]:
    """Indices of the float32 inputs that share the node's floating-point type."""
    schema = _schema(node.op_type, opset)
    variable = _variable(node, schema)
    return [i for i, value in enumerate(node.inputs) if _is_float(value) and _input(schema, i).type_str == variable]


def floating_outputs(node: ir.Node) -> list[ir.Value]:
    """The float32 outputs."""
    return [value for value in node.outputs if _is_float(value)]


def _variable(node: ir.Node, schema: onnx.defs.OpSchema) -> str | None:
    """The schema's type variable that the first floating input binds."""
    for index, value in enumerate(node.inputs):
        if _is_float(value) and (name := _input(schema, index).type_str) != FLOAT32_TYPE:
            return str(name)
    return None


def _input(schema: onnx.defs.OpSchema, index: int) -> onnx.defs.OpSchema.FormalParameter:
    return schema.inputs[min(index, len(schema.inputs) - 1)]  # the last may be variadic


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


@functools.cache
def _schema(operator: str, opset: int) -> onnx.defs.OpSchema:
    return onnx.defs.get_schema(operator, opset)
