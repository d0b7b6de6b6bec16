"""A graph of three layers becomes one of any depth: its second layer is written once for every layer but the first.

The exporter names nodes, values and weights by the module they come from (`/model/layers.1/self_attn/…`,
`model.layers.1.mlp.up_proj.weight`, `past_key_values.1.key`), so a layer is told by its names. What a layer reads is
its own, or its predecessor's, or shared by all; the third layer tells which, and that the second one is like it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import onnx_ir as ir

from mova_export.errors import ExportError

LAYERS = 3
"""Of a template: a first one, which computes what all share, one to repeat, and one to compare that with."""

_NUMBER = re.compile(r"(?<![^/.])(?P<kind>layers|past_key_values|present)\.(?P<layer>\d+)(?=[/.])")

Initializer = Callable[[str, ir.TensorProtocol], ir.TensorProtocol]
"""Gives an initializer of the full graph, by its name there and the template's tensor."""


def repeat(template: ir.Model, layers: int, initializer: Initializer) -> ir.Model:
    """The graph of `layers` layers.

    Args:
        template: of `LAYERS` layers; used up.
        layers: 1 or more.
        initializer: see there.

    Raises:
        ExportError: the template's second and third layers differ in more than their names.
    """
    _name_constants(template.graph)
    groups: dict[int | None, list[ir.Node]] = {None: [], **{layer: [] for layer in range(LAYERS)}}
    before: list[ir.Node] = []
    for node in template.graph:
        layer = layer_of(_name(node))
        if layer is None and not any(groups[index] for index in range(LAYERS)):
            before.append(node)
        elif layer in groups:
            groups[layer].append(node)
        else:
            raise _unlike(node)
    _compare(groups[1], groups[2])
    full = _Builder(template, layers, initializer)
    full.write(before, lambda name: name)
    full.write(groups[0], lambda name: name)
    previous = _previous(groups[1], groups[2])
    for layer in range(1, layers):

        def rename(name: str, layer: int = layer) -> str:
            if name in previous:
                return numbered(name, layer - 1)
            return numbered(name, layer) if layer_of(name) == 1 else name

        full.write(groups[1], rename)
    full.write(groups[None], lambda name: numbered(name, layers - 1) if layer_of(name) == LAYERS - 1 else name)
    return full.model()


def layer_of(name: str) -> int | None:
    """The layer that a node, a value or a weight belongs to by its name."""
    found = _NUMBER.search(name)
    return int(found["layer"]) if found else None


def numbered(name: str, layer: int) -> str:
    """The name of the same thing in another layer."""
    return _NUMBER.sub(lambda found: f"{found['kind']}.{layer}", name, count=1)


def _name(node: ir.Node) -> str:
    return node.name or ""


def _name_constants(graph: ir.Graph) -> None:
    """Constants that the exporter left a number are named by the layer that reads them."""
    counts: dict[int, int] = {}
    for node in graph:
        if node.op_type == "Constant" and not _name(node).startswith("/"):
            readers = [layer for reader, _ in node.outputs[0].uses() if (layer := layer_of(_name(reader))) is not None]
            if readers:
                layer = min(readers)
                counts[layer] = counts.get(layer, -1) + 1
                node.name = f"/model/layers.{layer}/given/Constant_{counts[layer]}"
                node.outputs[0].name = f"{node.name}_output_0"


def _compare(one: Sequence[ir.Node], other: Sequence[ir.Node]) -> None:
    """See that the second layer and the third are alike."""
    for a, b in zip(one, other, strict=False):
        alike = (a.op_identifier(), numbered(_name(a), 2)) == (b.op_identifier(), _name(b))
        if not alike or len(a.inputs) != len(b.inputs) or _attributes(a) != _attributes(b):
            raise _unlike(b)
        if [numbered(str(v.name), 2) for v in a.outputs] != [v.name for v in b.outputs]:
            raise _unlike(b)
    if len(one) != len(other):
        raise ExportError(f"llm: layer 1 was exported with {len(one)} nodes, layer 2 with {len(other)}")


def _previous(one: Sequence[ir.Node], other: Sequence[ir.Node]) -> set[str]:
    """Names of what the second layer reads of the first where the third reads it of the second."""
    found = set()
    for a, b in zip(one, other, strict=True):
        for x, y in zip(a.inputs, b.inputs, strict=True):
            reads, alike = ("" if value is None else str(value.name) for value in (x, y))
            if layer_of(reads) == 0 and alike == numbered(reads, 1):
                found.add(reads)
            elif alike != (numbered(reads, 2) if layer_of(reads) == 1 else reads):
                raise _unlike(b)
    return found


def _attributes(node: ir.Node) -> dict[str, object]:
    return {
        name: (value.value.dtype, value.value.numpy().tolist())
        if value.type == ir.AttributeType.TENSOR
        else (value.type, value.value)
        for name, value in node.attributes.items()
    }


def _unlike(node: ir.Node) -> ExportError:
    return ExportError(
        f"llm: its layers were exported in another form than the one that is known, at {_name(node) or node.op_type}"
    )


class _Builder:
    """The full graph as it grows; values are found by their names."""

    def __init__(self, template: ir.Model, layers: int, initializer: Initializer) -> None:
        graph = template.graph
        self._template, self._initializer = template, initializer
        self._known = {str(value.name): value for value in graph.initializers.values()}
        self._nodes: list[ir.Node] = []
        self._initializers: dict[str, ir.Value] = {}
        self._inputs = [
            ir.Value(name=name, shape=value.shape, type=value.type) for name, value in _repeated(graph.inputs, layers)
        ]
        self._values = {str(value.name): value for value in self._inputs}
        self._outputs = dict(_repeated(graph.outputs, layers))

    def write(self, nodes: Sequence[ir.Node], rename: Callable[[str], str]) -> None:
        """Add copies of nodes under other names."""
        for node in nodes:
            outputs = [ir.Value(name=rename(str(value.name))) for value in node.outputs]
            self._values.update((str(value.name), value) for value in outputs)
            inputs = [None if value is None else self._value(value, rename) for value in node.inputs]
            self._nodes.append(
                ir.Node(
                    node.domain, node.op_type, inputs, node.attributes.values(), outputs=outputs,
                    name=rename(_name(node)), overload=node.overload,
                )
            )  # fmt: skip

    def model(self) -> ir.Model:
        """All of it, once."""
        graph = self._template.graph
        outputs = []
        for name, declared in self._outputs.items():
            value = self._values[name]
            value.shape, value.type = declared.shape, declared.type
            outputs.append(value)
        full = ir.Graph(
            self._inputs, outputs, nodes=self._nodes, initializers=tuple(self._initializers.values()),
            opset_imports=graph.opset_imports, name=graph.name,
        )  # fmt: skip
        return ir.Model(full, ir_version=self._template.ir_version)

    def _value(self, value: ir.Value, rename: Callable[[str], str]) -> ir.Value:
        name = rename(str(value.name))
        if name not in self._values:
            known = self._known.get(str(value.name))
            if known is None or known.const_value is None:
                raise ExportError(f"llm: the exported graph reads {name}, which no node before it computes")
            tensor = self._initializer(name, known.const_value)
            new = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
            self._values[name] = self._initializers[name] = new
        return self._values[name]


def _repeated(values: Sequence[ir.Value], layers: int) -> list[tuple[str, ir.Value]]:
    """Inputs or outputs of the full graph: what every layer has comes last, layer by layer."""
    named = [(str(value.name), value) for value in values]
    found = [(name, value) for name, value in named if layer_of(name) is None]
    one = [(name, value) for name, value in named if layer_of(name) == 1]
    return found + [(numbered(name, layer), value) for layer in range(layers) for name, value in one]
