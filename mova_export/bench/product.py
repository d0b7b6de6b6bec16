"""A graph that does nothing but multiply matrices, written as an ONNX file byte by byte.

A device that serves has no onnx package, and the file is small: one input, one weight beside the file, and products in
a row. Field numbers are those of onnx.proto; the encoding is Protocol Buffers' own: every field is a key
(number × 8 + wire type), then a varint (type 0), or a length and that many bytes (type 2).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from mova_runtime.bundle.manifest import Precision

_FLOAT, _FLOAT16, _BFLOAT16 = 1, 10, 16
_ELEMENT: dict[Precision, int] = {"fp32": _FLOAT, "fp16": _FLOAT16, "bf16": _BFLOAT16}
"""TensorProto.DataType of the precisions that are multiplied in; where weights alone are smaller, it is float32."""

_IR_VERSION, _OPSET = 10, 20
_EXTERNAL, _INT = 1, 2
"""TensorProto.DataLocation and AttributeProto.AttributeType."""


def write(folder: Path, size: int, precision: Precision, products: int) -> Path:
    """Write y = x · w · … · w, [size, size] float32 in and out, multiplied in a precision.

    w is random with a spectral radius of about 1, so results stay in float16's range however often they go in again.

    Args:
        folder: an empty one; the graph comes into it, and `w.bin`.
        size: rows and columns.
        precision: fp32, fp16 or bf16.
        products: in a row.

    Returns:
        The graph's file.
    """
    weight = np.random.default_rng(0).standard_normal((size, size), np.float32) / np.float32(size**0.5)
    (folder / "w.bin").write_bytes(_stored(weight, precision))
    element = _ELEMENT[precision]
    names = ["x", *(f"x{index}" for index in range(1, products)), "y"]
    nodes = []
    if element != _FLOAT:  # what goes in and out stays float32, as in every component
        names[0], names[-1] = "rounded x", "rounded y"
        nodes = [_cast("x", names[0], element)]
    nodes += [_node("MatMul", (given, "w"), made) for given, made in pairwise(names)]
    if element != _FLOAT:
        nodes.append(_cast(names[-1], "y", _FLOAT))
    graph = b"".join(_part(1, node) for node in nodes)
    graph += _part(2, b"product")
    graph += _part(5, _weight(size, element))
    graph += _part(11, _value("x", size)) + _part(12, _value("y", size))
    model = _number(1, _IR_VERSION) + _part(7, graph) + _part(8, _number(2, _OPSET))
    path = folder / "product.onnx"
    path.write_bytes(model)
    return path


def _stored(weight: np.ndarray, precision: Precision) -> bytes:
    """The weight's bytes in a precision, little-endian."""
    if precision == "bf16":  # numpy has no such type: the upper half of a float32, rounded to nearest, ties to even
        bits = weight.view(np.uint32)
        return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype("<u2").tobytes()
    return weight.astype("<f2" if precision == "fp16" else "<f4").tobytes()


def _weight(size: int, element: int) -> bytes:
    """TensorProto: dims, data_type, name, external_data (key, value), data_location."""
    where = _part(1, b"location") + _part(2, b"w.bin")
    dims = _number(1, size) * 2
    return dims + _number(2, element) + _part(8, b"w") + _part(13, where) + _number(14, _EXTERNAL)


def _value(name: str, size: int) -> bytes:
    """ValueInfoProto: name, type; of a float32 tensor."""
    shape = _part(1, _number(1, size)) * 2
    return _part(1, name.encode()) + _part(2, _part(1, _number(1, _FLOAT) + _part(2, shape)))


def _node(operator: str, inputs: tuple[str, ...], output: str, attribute: bytes = b"") -> bytes:
    """NodeProto: input, output, op_type, attribute."""
    given = b"".join(_part(1, name.encode()) for name in inputs)
    return given + _part(2, output.encode()) + _part(4, operator.encode()) + attribute


def _cast(name: str, output: str, element: int) -> bytes:
    """A Cast, whose AttributeProto has name, i and type."""
    return _node("Cast", (name,), output, _part(5, _part(1, b"to") + _number(3, element) + _number(20, _INT)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _part(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
