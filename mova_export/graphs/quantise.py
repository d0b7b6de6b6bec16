"""Weights of 8 and 4 bits, arithmetic in floating point: MatMulNBits for matrices, int8 rows for lookup tables.

ONNX Runtime's own quantiser rounds the matrices, to nearest, a scale a block of 32 rows of a column. Measured on a
tower of 3 CLIP-L layers (width 1024) with random weights, 2 threads of an AMD EPYC with AVX512-VNNI, fp32 = 1; time
at 577 and 2304 tokens, relative L2 error, the same where 8 channels in a norm's 1024 are 30 times the rest, file:

    bits, block, arithmetic       577    2304    error    outliers   MB (fp32: 151)
    8      32    float32          1.09     –     4.3e-3    9.8e-3    42.5
    8      32    int8             0.60    0.72   6.6e-3    1.8e-2    42.5
    8      64    int8             0.56    0.66   7.4e-3    2.3e-2    40.2
    8     128    int8             0.44    0.62   8.2e-3    2.9e-2    39.0
    4      32    float32          0.86     –     6.9e-2    1.6e-1    23.7
    4      32    int8             0.63    0.66   6.9e-2    1.6e-1    23.7
    4      32    int8, asymmetric 0.65    0.75   6.6e-2    1.5e-1    24.2
    4      64    int8, asymmetric 0.59    0.73   7.4e-2      –       21.6

Hence blocks of 32, symmetric, and int8 arithmetic (`accuracy_level` 4 rounds activations too, to int8 in the same
blocks): larger blocks let an outlier, which vision towers have, spoil more of its neighbours.

The adapter's matrices are stacked over experts and gathered by pair, which MatMulNBits does not do, and 4 bits can't be
gathered at opset 20. They are int8 in both, a scale a column; gathered, then widened: a few ms a pair, a quarter of the
bytes.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from mova_export.graphs.operators import WHY, floating_inputs
from mova_export.graphs.policy import Kept, Policy
from mova_export.graphs.precision import LARGE_TABLE
from mova_export.graphs.residual import residual_sums

BLOCK = 32
INT8_ARITHMETIC = 4
DOMAIN = "com.microsoft"

ROTATION = ".quarter_turn"
"""Marks the matrices of a rotary embedding (modules/rotary.py), which are no weights: of 1, -1 and nothing else."""

_READERS = {"Add": "biases", "Mul": "scales", "Gather": "small tables", "MatMul": "small matrices", **WHY}


def matrices(model: ir.Model) -> list[ir.Node]:
    """The MatMuls that can be quantised, those first that need more bits most.

    Errors add up like independent ones. A matrix on the way into the residual stream, or from it to an output, shows
    its whole error in the output; of the others, the earlier a layer, the more layers its error goes through.
    """
    inner = _inner(model)
    found = [
        node
        for node in model.graph
        if node.op_type == "MatMul" and node.inputs[1].is_initializer() and len(node.inputs[1].shape) == 2
        if ROTATION not in node.inputs[1].name
    ]
    return sorted(found, key=lambda node: node in inner)  # the sort is stable


def edges(model: ir.Model) -> int:
    """How many matrices lie before the first residual sum or behind the last."""
    inner = _inner(model)
    return sum(node not in inner for node in matrices(model))


def quantise(model: ir.Model, bits: int, policy: Policy, eight: int = 0) -> Kept:
    """Quantise a float32 graph's weights in place; they are computed one at a time when the model is saved.

    Args:
        model: the graph, prepared (see prepare.py).
        bits: 8 or 4.
        policy: parts whose weights stay float32.
        eight: with 4 bits, how many of `matrices` get 8.
    """
    found = matrices(model)
    for index, node in enumerate(found):
        if not any(mark in node.inputs[1].name for _, mark in policy.weights):
            _quantise_matrix(model.graph, node, 8 if index < eight else bits)
    tables = [_quantise_lookup(model.graph, node) for node in list(model.graph) if _is_large_lookup(node)]
    model.opset_imports[DOMAIN] = 1
    passes.RemoveUnusedNodesPass()(model)
    wide = [f"{eight} of {len(found)} matrices"] * (eight > 0) + sorted(set(tables))
    return Kept(_left(model, policy), tuple(wide) if bits == 4 else ())


def _quantise_matrix(graph: ir.Graph, node: ir.Node, bits: int) -> None:
    weight = node.inputs[1]
    rows, columns = weight.shape
    blocks = -(-rows // BLOCK)
    tensor = weight.const_value

    def packed() -> np.ndarray:
        return _rounded(tensor, bits)[0]

    def scales() -> np.ndarray:
        return _rounded(tensor, bits)[1]

    inputs = [
        node.inputs[0],
        _constant(graph, f"{weight.name}.int{bits}", packed, ir.DataType.UINT8, (columns, blocks, BLOCK * bits // 8)),
        _constant(graph, f"{weight.name}.int{bits}.scales", scales, ir.DataType.FLOAT, (columns, blocks)),
    ]
    sizes = {"K": int(rows), "N": int(columns), "bits": bits, "block_size": BLOCK, "accuracy_level": INT8_ARITHMETIC}
    _replace(graph, node, [ir.node("MatMulNBits", inputs, sizes, domain=DOMAIN, name=node.name)])


@functools.lru_cache(maxsize=1)  # a matrix's numbers and its scales are saved one after the other
def _rounded(tensor: ir.TensorProtocol, bits: int) -> tuple[np.ndarray, np.ndarray]:
    quantizer = _quantizer(bits)
    packed, scales, _ = quantizer.qbits_block_quant(np.ascontiguousarray(tensor.numpy(), dtype=np.float32))
    return packed, scales


@functools.cache
def _quantizer(bits: int):  # type: ignore[no-untyped-def]  # onnxruntime is not typed
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits  # noqa: PLC0415  # it configures logging

    root.handlers[:] = before
    root.setLevel(level)
    return nbits.DefaultWeightOnlyQuantizer(
        nbits.DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, bits=bits)
    )


def _is_large_lookup(node: ir.Node) -> bool:
    if node.op_type != "Gather" or not node.inputs[0].is_initializer():
        return False
    table, axis = node.inputs[0], node.attributes.get_int("axis", 0)
    return axis == 0 and table.dtype == ir.DataType.FLOAT and table.const_value.size >= LARGE_TABLE


def _quantise_lookup(graph: ir.Graph, node: ir.Node) -> str:
    """Gather int8 and scales: a scale a row of a table [rows, width], a column of matrices [n, rows, columns]."""
    table, index = node.inputs
    tensor, axis = table.const_value, 1
    shape = tuple(int(length) for length in table.shape)
    scale_shape = tuple(1 if at == axis else length for at, length in enumerate(shape))

    def scales() -> np.ndarray:
        return np.maximum(np.abs(tensor.numpy()).max(axis=axis, keepdims=True), np.finfo(np.float32).tiny * 127) / 127

    def rounded() -> np.ndarray:
        return np.rint(tensor.numpy() / scales()).astype(np.int8)

    numbers = ir.node("Gather", [_constant(graph, f"{table.name}.int8", rounded, ir.DataType.INT8, shape), index])
    scale = ir.node(
        "Gather", [_constant(graph, f"{table.name}.int8.scales", scales, ir.DataType.FLOAT, scale_shape), index]
    )
    wide = ir.node("Cast", [numbers.outputs[0]], {"to": ir.DataType.FLOAT.value})
    scaled = ir.node("Mul", [wide.outputs[0], scale.outputs[0]])
    name = node.outputs[0].name
    for part, suffix in ((numbers, "int8"), (scale, "scale"), (wide, "wide")):
        part.outputs[0].name = f"{name}.{suffix}"
    _replace(graph, node, [numbers, scale, wide, scaled])
    return "stacked matrices" if len(shape) > 2 else "tables"


def _replace(graph: ir.Graph, old: ir.Node, new: list[ir.Node]) -> None:
    was, now = old.outputs[0], new[-1].outputs[0]
    now.shape, now.dtype = was.shape, was.dtype
    graph.insert_before(old, new)
    ir.convenience.replace_all_uses_with(was, now, replace_graph_outputs=True)
    name = was.name
    graph.remove(old, safe=True)
    now.name = name


def _constant(
    graph: ir.Graph, name: str, compute: Callable[[], np.ndarray], dtype: ir.DataType, lengths: tuple[int, ...]
) -> ir.Value:
    """An initializer that is computed when it is saved."""
    if (known := graph.initializers.get(name)) is not None:  # the table is read twice
        return known
    shape = ir.Shape(lengths)
    tensor = ir.LazyTensor(lambda: ir.Tensor(compute(), dtype=dtype, name=name), dtype=dtype, shape=shape, name=name)
    value = ir.Value(name=name, shape=shape, type=ir.TensorType(dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _left(model: ir.Model, policy: Policy) -> tuple[str, ...]:
    """Who reads the float32 constants that are left."""
    found = set()
    for node in model.graph:
        for value in node.inputs:
            if value is not None and value.is_initializer() and value.dtype == ir.DataType.FLOAT:
                parts = [part for part, mark in policy.weights if mark in value.name]
                if value.const_value.size > 1 and not value.name.endswith(".scales"):
                    found.add(parts[0] if parts else _READERS.get(node.op_type, node.op_type))
    return tuple(sorted(found))


def _inner(model: ir.Model) -> set[ir.Node]:
    """The nodes between the first residual sum and the last."""
    floating = {node: floating_inputs(node, model.opset_imports[""]) for node in model.graph if node.domain == ""}
    sums = residual_sums(model.graph, floating)
    return _downstream(model.graph, sums) & _upstream(model.graph, sums)


def _downstream(graph: ir.Graph, nodes: set[ir.Node]) -> set[ir.Node]:
    """The nodes computed from others."""
    found: set[ir.Node] = set()
    for node in graph:
        if any(v is not None and (v.producer() in nodes or v.producer() in found) for v in node.inputs):
            found.add(node)
    return found


def _upstream(graph: ir.Graph, nodes: set[ir.Node]) -> set[ir.Node]:
    """The nodes that others are computed from."""
    found: set[ir.Node] = set()
    for node in reversed(graph):
        if any(r in nodes or r in found for value in node.outputs for r, _ in value.uses()):
            found.add(node)
    return found
