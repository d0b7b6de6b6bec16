"""One component: written as a graph, compared with torch on its probe, described for the manifest."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor

from mova_export.bundle import BundleWriter
from mova_export.checkpoint.load import Checkpoint
from mova_export.errors import ParityError
from mova_export.graphs.components import component_graph
from mova_export.graphs.graph import Axes, Graph
from mova_export.graphs.onnx import write_onnx
from mova_runtime.bundle.manifest import Artifact, Component, Parity, Probe, TensorSpec
from mova_runtime.engines import ort
from mova_runtime.parity import TOLERANCE, compare

PRECISION: Literal["fp32"] = "fp32"


def export_component(writer: BundleWriter, checkpoint: Checkpoint, name: str) -> Component:
    """Export one component; its weights are in memory only as long as this takes.

    Raises:
        ParityError: the graph computes something other than torch.
    """
    graph = component_graph(checkpoint, name)
    folder = f"components/{name}"
    files = write_onnx(graph, writer.path(f"{folder}/{PRECISION}/model.onnx"))
    expected = graph.reference(*graph.probe.values())
    outputs = dict(zip(graph.outputs, expected if isinstance(expected, tuple) else (expected,), strict=True))
    probe = Probe(
        inputs={key: writer.array(f"{folder}/probe/{key}.npy", tensor) for key, tensor in graph.probe.items()},
        outputs={key: writer.array(f"{folder}/probe/{key}.npy", tensor) for key, tensor in outputs.items()},
    )
    component = Component(
        inputs=tuple(_spec(key, tensor, graph.dynamic.get(key, {})) for key, tensor in graph.probe.items()),
        outputs=tuple(_spec(key, tensor, graph.outputs[key]) for key, tensor in outputs.items()),
        parameters=graph.parameters,
        artifacts=(
            Artifact(
                format="onnx",
                precision=PRECISION,
                files=tuple(writer.record(file) for file in files),
                parity=_check(files[0], name, graph, outputs),
            ),
        ),
        probe=probe,
    )
    del graph, expected, outputs
    gc.collect()  # modules refer to themselves in circles; the next component needs the room
    return component


def _check(model: Path, name: str, graph: Graph, expected: Mapping[str, Tensor]) -> tuple[Parity, ...]:
    engine = ort.open_engine(model, name, 0)
    found = engine.run({key: tensor.numpy() for key, tensor in graph.probe.items()}, list(expected))
    engine.close()
    parity = tuple(compare(key, found[key], tensor.numpy()) for key, tensor in expected.items())
    for result in parity:
        if not result.relative_l2 <= TOLERANCE[PRECISION]:
            raise ParityError(
                f"{name}: output {result.output!r} differs from torch by {result.relative_l2:.1e} (relative L2; "
                f"allowed {TOLERANCE[PRECISION]:.0e}); this is a fault of the exporter or of ONNX Runtime"
            )
    # Two digits: more would be noise, and would make two exports of the same checkpoint differ.
    return tuple(Parity(p.output, float(f"{p.relative_l2:.1e}"), float(f"{p.max_abs:.1e}")) for p in parity)


def _spec(name: str, tensor: Tensor, axes: Axes) -> TensorSpec:
    shape = tuple(axes.get(axis, length) for axis, length in enumerate(tensor.shape))
    return TensorSpec(name, str(tensor.dtype).removeprefix("torch."), shape)
