"""Graphs to ONNX files: weights beside the graph, and nothing in either of when or where they were made."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
import torch

from mova_export.graphs.graph import Graph
from mova_export.graphs.language import EmbeddingsLlama, write_with_optimum
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
        model = (
            _export_language(graph.module, path.parent) if isinstance(graph.module, EmbeddingsLlama) else _export(graph)
        )
    _forget_origin(model)
    drop_zero_sums(model)
    return save(model, path)


def save(model: ir.Model, path: Path) -> list[Path]:
    """Write a model with its weights beside it, one weight at a time; returns both files."""
    weights = path.with_name(path.name + _WEIGHTS_SUFFIX)
    path.parent.mkdir(parents=True, exist_ok=True)
    ir.save(model, path, external_data=weights.name)
    return [path, weights]


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


def _export_language(module: EmbeddingsLlama, beside: Path) -> ir.Model:
    with tempfile.TemporaryDirectory(dir=beside) as folder:
        path = Path(folder) / "llm.onnx"
        write_with_optimum(module, path, OPSET)
        model = ir.load(path)
        ir.external_data.load_to_model(model)  # before the temporary file goes
    return model


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
