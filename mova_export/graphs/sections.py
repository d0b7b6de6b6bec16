"""A graph in sections, each small enough to be loaded by itself: together they compute what the whole does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir
import onnx_ir.passes.common as passes


def sections(model: ir.Model, elements: int) -> Iterator[ir.Model]:
    """Cut a graph into parts that follow each other.

    A section's inputs are the graph's inputs and what earlier sections gave, by name; its outputs, what later ones
    read and the graph's outputs. Weights stay where they are: a section refers to the same.

    Args:
        model: without subgraphs that read values of the graph around them; its constants become initializers.
        elements: of its weights at most; a node whose weights are larger has a section to itself.
    """
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    if any(value.dtype is None for node in model.graph for value in node.outputs):
        passes.ShapeInferencePass()(model)
    parts = list(_parts(model.graph, elements))
    place = {node: index for index, part in enumerate(parts) for node in part}
    for index, part in enumerate(parts):
        yield _section(model, part, index, place)


def _parts(graph: ir.Graph, elements: int) -> Iterator[list[ir.Node]]:
    part: list[ir.Node] = []
    held: set[ir.Value] = set()
    size = 0
    for node in graph:
        new = {value for value in node.inputs if value is not None and value.is_initializer()} - held
        more = sum(value.const_value.size for value in new)
        if part and size + more > elements:
            yield part
            part, held, size = [], set(), 0
        part.append(node)
        held |= new
        size += more
    yield part


def _section(model: ir.Model, part: Sequence[ir.Node], index: int, place: dict[ir.Node, int]) -> ir.Model:
    inside: dict[ir.Value, ir.Value] = {}
    given: list[ir.Value] = []
    constants: list[ir.Value] = []
    nodes: list[ir.Node] = []
    for node in part:
        for value in node.inputs:
            if value is not None and value not in inside:
                new = inside[value] = _copy(value)
                (constants if value.is_initializer() else given).append(new)
        outputs = [_copy(value) for value in node.outputs]
        inside.update(zip(node.outputs, outputs, strict=True))
        inputs = [None if value is None else inside[value] for value in node.inputs]
        nodes.append(
            ir.Node(
                node.domain, node.op_type, inputs, node.attributes.values(), outputs=outputs, name=node.name,
                overload=node.overload,
            )
        )  # fmt: skip
    needed = [inside[value] for node in part for value in node.outputs if _leaves(value, index, place)]
    imports = model.graph.opset_imports
    graph = ir.Graph(given, needed, nodes=nodes, initializers=constants, opset_imports=imports, name=f"section {index}")
    return ir.Model(graph, ir_version=model.ir_version)


def _leaves(value: ir.Value, index: int, place: dict[ir.Node, int]) -> bool:
    return value.is_graph_output() or any(place[reader] != index for reader, _ in value.uses())


def _copy(value: ir.Value) -> ir.Value:
    return ir.Value(name=value.name, shape=value.shape, type=value.type, const_value=value.const_value)
