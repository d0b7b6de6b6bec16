"""Finds a layer's attention in the language model's graph, in whatever precision its products are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from mova_export.errors import ExportError
from mova_export.graphs.operators import MOVEMENT

_ROTARY = "/model/rotary_emb/"

_COMPUTES = Counter(MatMul=2, Softmax=1, Mul=5, Add=3, Neg=2)
"""An attention's arithmetic: scores, times a number, plus a mask; queries and keys rotated, a sum of two products each.
"""


@dataclass(frozen=True)
class Attention:
    """What lies between queries, keys and values [batch, new, heads · width] and what the output's product reads.

    scale: what scores are multiplied by; past, present: the cache's key and value [batch, heads, tokens, width].
    """

    query: ir.Value
    key: ir.Value
    value: ir.Value
    past: tuple[ir.Value, ...]
    present: tuple[ir.Value, ...]
    output: ir.Value
    scale: float


def attention(graph: ir.Graph, layer: int) -> Attention:
    """Find it by the names of its nodes, and see that it is what is known.

    Args:
        graph: prepared (see prepare.py).
        layer: from 0.

    Raises:
        ExportError: it has another form.
    """
    at = f"/model/layers.{layer}/self_attn/"
    query, key, value = (_leaving(graph, layer, f"{at}{part}_proj/") for part in "qkv")
    output = _entering(graph, layer, f"{at}o_proj/")
    nodes, read = _between(output, {query, key, value}, at)
    computes = Counter(node.op_type for node in nodes if node.op_type not in MOVEMENT | {"Cast"})
    past = tuple(_named(graph.inputs, layer, f"past_key_values.{layer}.{part}") for part in ("key", "value"))
    present = tuple(_named(graph.outputs, layer, f"present.{layer}.{part}") for part in ("key", "value"))
    constants = [one for one in read if one.is_initializer()]
    others = read - {query, key, value, *past, *constants}
    positions = [one for one in others if _name(one.producer()).startswith(_ROTARY)]
    known = (
        computes == _COMPUTES
        and {query, key, value, *past} <= read
        and {one.producer() for one in present} <= nodes
        and [one.const_value.size for one in constants] == [1]
        and (len(positions), len(others)) == (2, 3)  # cosines, sines, and a mask
    )
    if not known:
        raise _unknown(layer)
    return Attention(query, key, value, past, present, output, float(constants[0].const_value.numpy().item()))


def _between(last: ir.Value, first: set[ir.Value], prefix: str) -> tuple[set[ir.Node], set[ir.Value]]:
    """The nodes that numbers go through, and not shapes, from `first` or from other modules to a value.

    Layers share what only moves values.

    Returns:
        The nodes, and what they read that none of them makes.
    """
    nodes, read, todo = set[ir.Node](), set[ir.Value](), [last]
    while todo:
        value = todo.pop()
        node = value.producer()
        if value in first or node is None or not (_name(node).startswith(prefix) or node.op_type in MOVEMENT):
            read.add(value)
        elif node not in nodes:
            nodes.add(node)
            todo += [one for one in node.inputs if one is not None and one.dtype == ir.DataType.FLOAT]
    return nodes, read


def _leaving(graph: ir.Graph, layer: int, prefix: str) -> ir.Value:
    """The one value that nodes of a module make for others."""
    made = (value for node in graph if _name(node).startswith(prefix) for value in node.outputs)
    return _only((one for one in made if any(not _name(reader).startswith(prefix) for reader, _ in one.uses())), layer)


def _entering(graph: ir.Graph, layer: int, prefix: str) -> ir.Value:
    """The one value that nodes of a module read of others."""
    read = (value for node in graph if _name(node).startswith(prefix) for value in node.inputs if value is not None)
    computed = (one for one in read if one.producer() is not None)
    return _only((one for one in computed if not _name(one.producer()).startswith(prefix)), layer)


def _named(values: Iterable[ir.Value], layer: int, name: str) -> ir.Value:
    return _only((value for value in values if value.name == name), layer)


def _only(values: Iterable[ir.Value], layer: int) -> ir.Value:
    found = set(values)
    if len(found) != 1:
        raise _unknown(layer)
    return found.pop()


def _unknown(layer: int) -> ExportError:
    return ExportError(f"llm: the attention of layer {layer} has another form than the one that is known")


def _name(node: ir.Node | None) -> str:
    return (node.name if node else None) or ""
