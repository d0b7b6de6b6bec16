"""Graphs to ONNX files: weights beside the graph, and nothing in either of when or where they were made."""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from mova_export.graphs.graph import Graph
from mova_export.graphs.language.graph import LanguageGraph
from mova_export.graphs.names import name_transposed
from mova_export.graphs.zeros import drop_zero_sums

OPSET = 20
"""The newest opset that every backend takes: from 23 on, attention becomes an operator that some refuse."""

_WEIGHTS_SUFFIX = ".data"


def write_onnx(graph: Graph, path: Path) -> list[Path]:
    """Export a graph.

    Args:
        graph: what to export.
        path: where the graph goes, ending in .onnx; its weights go beside it.

    Returns:
        The files written, the graph first.
    """
    with _quiet(), torch.no_grad():
        model = _export(graph)
    _forget_origin(model)
    drop_zero_sums(model)
    return save(model, path)


def language_model(graph: LanguageGraph) -> ir.Model:
    """The language model's graph, which is small: its weights are read one at a time, when they are asked for."""
    with _quiet(), torch.no_grad():
        model = graph.model(OPSET)
    _forget_origin(model)
    return model


def save(model: ir.Model, path: Path) -> list[Path]:
    """Write a model with its weights beside it, one weight at a time; returns both files."""
    weights = data_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ir.save(model, path, external_data=weights.name)
    return [path, weights]


def save_weights(weights: Sequence[ir.Value], path: Path) -> list[Path]:
    """Write some of a model's weights and nothing else, one at a time; returns both files."""
    copies = [ir.Value(name=v.name, shape=v.shape, type=v.type, const_value=v.const_value) for v in weights]
    imports = {"": OPSET}
    return save(ir.Model(ir.Graph([], [], nodes=[], initializers=copies, opset_imports=imports), ir_version=10), path)


def data_of(path: Path) -> Path:
    """The file of a graph's weights."""
    return path.with_name(path.name + _WEIGHTS_SUFFIX)


def unmapped(path: Path) -> ir.Model:
    """A graph from a file, whose weights are read when they are asked for, each time anew, and not kept.

    A mapped file's pages count as the process's memory until all of it is let go of.
    """
    model = ir.load(path)
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = _read_when_asked(value.const_value)
    return model


def _read_when_asked(tensor: ir.ExternalTensor) -> ir.LazyTensor:
    def read() -> ir.TensorProtocol:
        array = np.fromfile(
            tensor.path, tensor.dtype.numpy(), math.prod(tensor.shape.numpy()), offset=tensor.offset or 0
        )
        return ir.Tensor(array.reshape(tensor.shape.numpy()), dtype=tensor.dtype, name=tensor.name)

    return ir.LazyTensor(read, dtype=tensor.dtype, shape=tensor.shape, name=tensor.name)


def _export(graph: Graph) -> ir.Model:
    shapes = tuple(
        {axis: torch.export.Dim(name) for axis, name in graph.dynamic.get(inputs, {}).items()}
        for inputs in graph.example
    )
    program = torch.onnx.export(
        graph.module,
        tuple(graph.example.values()),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(graph.example),
        output_names=list(graph.outputs),
        dynamic_shapes=shapes,
        verbose=False,
    )
    assert program is not None
    name_transposed(program.model, graph.module)
    return program.model


def _forget_origin(model: ir.Model) -> None:
    """Drop stack traces and the like: they hold paths of this machine, and would change the file's hash."""
    model.doc_string = None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.graph.doc_string = None
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporters say about themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "optimum", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
