"""One component: written as graphs, compared with torch on its probe, described for the manifest."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from mova_export.artifacts import Derived, Origin, add_agreement, add_in_place, derive, require, stored
from mova_export.bundle import BundleWriter
from mova_export.checkpoint.source import Source
from mova_export.graphs.components import component_graph
from mova_export.graphs.graph import Axes, Expected, Graph
from mova_export.graphs.language.graph import LanguageGraph
from mova_export.graphs.language.in_place import suits
from mova_export.graphs.onnx import language_model, write_onnx
from mova_export.reference import Reference
from mova_runtime.bundle.manifest import Artifact, Component, Precision, Probe, TensorSpec
from mova_runtime.engines.release import release
from mova_runtime.parity.probe import Case

Tensors = Mapping[str, Tensor]

_PROMPT = "prompt {}"

_ON_PROCESSORS: tuple[Precision, ...] = ("fp32", "int8", "int4")
"""What ONNX Runtime computes in on a processor."""


def export_component(
    writer: BundleWriter,
    model: Source,
    name: str,
    precisions: Sequence[Precision],
    finished: Callable[[Artifact], None] = lambda artifact: None,
    prompts: Sequence[Sequence[int]] = (),
) -> Component:
    """Export one component; its weights are in memory only as long as this takes.

    Every precision is derived from the float32 graph, which is checked first: a wrong graph can't hide behind a lower
    precision's bar. Where it was not asked for, it is removed in the end, and the language model's never written. The
    latter has a second form beside the one for all backends, see graphs/language/in_place.py.

    Args:
        writer: of the bundle.
        model: whose component it is.
        name: of the component.
        precisions: wanted, in order of preference.
        finished: called after each.
        prompts: token ids that the language model's precisions are compared on.

    Raises:
        ParityError: a graph computes something other than torch.
    """
    folder = f"components/{name}"
    source = writer.path(f"{folder}/fp32/model.onnx")
    graph = component_graph(model, name)
    origin = _origin(graph, source)
    cases = {"": graph.probe, **graph.more_probes}
    spoken = [] if isinstance(graph, Graph) else graph.prompts(prompts)
    expected = graph.expected(cases | {_PROMPT.format(index): inputs for index, inputs in enumerate(spoken)})
    outputs, operations = expected[""].outputs, expected[""].operations
    probe, *more = [_probe(writer, folder, case, cases[case], expected[case].outputs) for case in cases]
    reference = _reference(name, cases, spoken, expected)
    inputs = tuple(_spec(key, tensor, graph.dynamic.get(key, {})) for key, tensor in graph.probe.items())
    specs = tuple(_spec(key, tensor, graph.outputs[key]) for key, tensor in outputs.items())
    parameters = graph.parameters
    in_place = graph.config if isinstance(graph, LanguageGraph) and suits(graph.config) else None
    _let_go(graph)
    del graph, cases, spoken, expected, outputs
    gc.collect()  # modules refer to themselves in circles; the other precisions and components need the room
    release()

    found: dict[Precision, Derived] = {}
    if source.exists() or "fp32" in precisions:
        found["fp32"] = derive(origin, source, "fp32", reference)
        origin = stored(source)
    else:
        require(reference.judge(origin(), source.parent, "fp32"))
    artifacts = []
    for precision in precisions:
        if precision not in found:
            path = writer.path(f"{folder}/{precision}/model.onnx")
            found[precision] = derive(origin, path, precision, reference)
        if in_place and precision in _ON_PROCESSORS:
            found[precision] = add_in_place(found[precision], in_place, reference)
        found[precision] = add_agreement(found[precision], reference)
        artifacts.append(_artifact(writer, precision, found[precision], len(specs)))
        finished(artifacts[-1])
    if "fp32" not in precisions:
        shutil.rmtree(source.parent)
    return Component(inputs, specs, parameters, tuple(artifacts), probe, tuple(more), operations)


def _reference(
    name: str, cases: Mapping[str, Tensors], spoken: Sequence[Tensors], expected: Mapping[str, Expected]
) -> Reference:
    """What graphs are compared with: every output of the probes, and of prompts the logits."""
    probes = [Case(case, _arrays(cases[case]), _arrays(expected[case].outputs)) for case in cases]
    logits = [{"logits": expected[_PROMPT.format(index)].outputs["logits"]} for index in range(len(spoken))]
    prompts = [Case("", _arrays(inputs), _arrays(found)) for inputs, found in zip(spoken, logits, strict=True)]
    return Reference(name, tuple(probes), tuple(prompts))


def _origin(graph: Graph | LanguageGraph, source: Path) -> Origin:
    """A component's float32 graph; written, unless its weights can be asked for again."""
    if isinstance(graph, LanguageGraph):
        again: Origin = language_model(graph).clone
        return again
    write_onnx(graph, source)
    return stored(source)


def _let_go(graph: Graph | LanguageGraph) -> None:
    """Free a graph's weights, whoever still refers to them.

    The rewriting rules of torch's exporter remember the last graph they saw until the next one: its weights would stay
    in memory while the component is checked and the next one is loaded.
    """
    for module in (graph.module, graph.reference) if isinstance(graph, Graph) else ():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = tensor.new_empty(0)


def _probe(
    writer: BundleWriter, folder: str, case: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
) -> Probe:
    place = f"{folder}/probe{'-' if case else ''}{case.replace(' ', '-')}"
    return Probe(
        inputs={key: writer.array(f"{place}/{key}.npy", tensor) for key, tensor in inputs.items()},
        outputs={key: writer.array(f"{place}/{key}.npy", tensor) for key, tensor in outputs.items()},
        case=case,
    )


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {key: tensor.numpy() for key, tensor in tensors.items()}


def _artifact(writer: BundleWriter, precision: Precision, derived: Derived, outputs: int) -> Artifact:
    """`outputs`: how many of the verdict's are the first probe's."""
    files = {path: writer.record(path) for path in derived.files}
    return Artifact(
        format="onnx",
        precision=precision,
        files=tuple(files.values()),
        parity=tuple(difference.rounded() for difference in derived.verdict.outputs[:outputs]),
        float32=derived.kept.float32,
        int8=derived.kept.int8,
        in_place=files[derived.in_place].path if derived.in_place else None,
        agreement=derived.agreement,
    )


def _spec(name: str, tensor: Tensor, axes: Axes) -> TensorSpec:
    shape = tuple(axes.get(axis, length) for axis, length in enumerate(tensor.shape))
    return TensorSpec(name, str(tensor.dtype).removeprefix("torch."), shape)
