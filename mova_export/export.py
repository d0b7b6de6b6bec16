"""A checkpoint becomes a bundle: component by component, each checked against torch before the next is loaded."""

from __future__ import annotations

import gc
import importlib.metadata
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mova_export.bundle import BundleWriter
from mova_export.checkpoint.layout import COMPONENTS, EXPERTS, component_of
from mova_export.checkpoint.load import EMBEDDINGS, Checkpoint
from mova_export.checkpoint.prompts import QUESTION, prompts, routing_letters
from mova_export.checkpoint.tokenizer import beginning_of_sequence, cleans_up_spaces, language_tokenizer, text_tokenizer
from mova_export.errors import ExportError, ParityError
from mova_export.graphs.components import EXPERT_INPUTS, component_graph
from mova_export.graphs.graph import Axes, Graph
from mova_export.graphs.onnx import write_onnx
from mova_runtime.bundle import Manifest, sha256_of
from mova_runtime.bundle.manifest import (
    FORMAT,
    VERSION,
    Artifact,
    Component,
    Expert,
    File,
    Language,
    Parity,
    Probe,
    Provenance,
    TensorSpec,
    Text,
    Vision,
)
from mova_runtime.engines import ort
from mova_runtime.parity import TOLERANCE, compare

PRECISION: Literal["fp32"] = "fp32"
MAX_TEXT_TOKENS = 512
_TOOLS = ("mova-export", "torch", "transformers", "optimum-onnx", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Progress:
    """A component is done: its place in the order, its size, its largest error, and the seconds it took."""

    component: str
    index: int
    total: int
    bytes: int
    relative_l2: float
    seconds: float


def export(
    checkpoint_path: Path,
    out: Path,
    *,
    components: Collection[str] = COMPONENTS,
    tower_folders: Mapping[str, Path] | None = None,
    template: str | None = None,
    overwrite: bool = False,
    starting: Callable[[str, int, int], None] = lambda component, index, total: None,
    finished: Callable[[Progress], None] = lambda progress: None,
) -> Manifest:
    """Export a published checkpoint to a bundle.

    Args:
        checkpoint_path: folder with config.json, weights and tokenizer.
        out: the bundle's folder, which appears when the export is complete.
        components: which to export; all by default.
        tower_folders: folders of towers (base, an expert, text) that are not where config.json says.
        template: the prompt template, where the tokenizer does not tell.
        overwrite: replace a bundle that is there.
        starting: called with component, index from 1 and total before each component.
        finished: called after each component.

    Returns:
        What was written to manifest.json.

    Raises:
        CheckpointError: the checkpoint is not MoVA's, incomplete, damaged or unsafe.
        ExportError: an unknown component, the output exists, or the disk is full.
        ParityError: a graph's output is not torch's.
    """
    if unknown := [name for name in components if name not in COMPONENTS]:
        raise ExportError(f"unknown component {', '.join(unknown)}; one of {', '.join(COMPONENTS)}")
    writer = BundleWriter(out, overwrite=overwrite)
    checkpoint = Checkpoint(checkpoint_path, tower_folders)
    chosen = [name for name in COMPONENTS if name in components]
    checkpoint.check(chosen)
    language, text = language_tokenizer(checkpoint_path), text_tokenizer(checkpoint.folders.folder("text"))
    chosen_prompts = prompts(language, template)

    with writer, torch.no_grad():
        writer.require(_expected_bytes(checkpoint, chosen))
        exported = {}
        for index, name in enumerate(chosen, 1):
            starting(name, index, len(chosen))
            start = perf_counter()
            exported[name] = _export_component(writer, checkpoint, name)
            artifact = exported[name].artifacts[0]
            error = max(parity.relative_l2 for parity in artifact.parity)
            finished(Progress(name, index, len(chosen), artifact.bytes, error, perf_counter() - start))
        manifest = Manifest(
            format=FORMAT,
            version=VERSION,
            vision=_vision(checkpoint),
            preprocessing=checkpoint.preprocessing,
            prompts=chosen_prompts,
            text=Text(_write_text(writer, "tokenizers/text.json", text.to_str()), MAX_TEXT_TOKENS, QUESTION),
            language=_language(
                writer, checkpoint, _write_text(writer, "tokenizers/language.json", language.to_str()), chosen
            ),
            components=exported,
            provenance=_provenance(checkpoint),
        )
        writer.finish(manifest)
    return manifest


def _export_component(writer: BundleWriter, checkpoint: Checkpoint, name: str) -> Component:
    graph = component_graph(checkpoint, name)
    folder = f"components/{name}"
    files = write_onnx(graph, writer.path(f"{folder}/{PRECISION}/model.onnx"))
    expected = graph.reference(*graph.probe.values())
    outputs = dict(zip(graph.outputs, expected if isinstance(expected, tuple) else (expected,), strict=True))
    probe = Probe(
        inputs={key: _write_array(writer, f"{folder}/probe/{key}.npy", tensor) for key, tensor in graph.probe.items()},
        outputs={key: _write_array(writer, f"{folder}/probe/{key}.npy", tensor) for key, tensor in outputs.items()},
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


def _vision(checkpoint: Checkpoint) -> Vision:
    config = checkpoint.config
    return Vision(
        grid=config.grid,
        visual_tokens=(config.grid // 2) ** 2,
        routing_tokens=config.routing_tokens,
        top_k=config.top_k,
        experts=tuple(
            Expert(name, letter, EXPERT_INPUTS[name]) for name, letter in zip(EXPERTS, routing_letters(), strict=True)
        ),
    )


def _language(writer: BundleWriter, checkpoint: Checkpoint, tokenizer: File, chosen: Collection[str]) -> Language:
    llama = checkpoint.llama_config
    embeddings = None
    if "llm" in chosen:
        table = checkpoint.reader.tensor(EMBEDDINGS)
        embeddings = _write_array(writer, "components/llm/embeddings.npy", table)
    return Language(
        tokenizer=tokenizer,
        bos=beginning_of_sequence(checkpoint.path),
        embeddings=embeddings,
        hidden=llama.hidden_size,
        layers=llama.num_hidden_layers,
        key_value_heads=llama.num_key_value_heads,
        head_dim=llama.head_dim,
        context=checkpoint.config.context,
        max_prompt=checkpoint.config.max_prompt,
        clean_up_spaces=cleans_up_spaces(checkpoint.path),
    )


def _provenance(checkpoint: Checkpoint) -> Provenance:
    files = [checkpoint.path / "config.json", *checkpoint.reader.files]
    versions = {name: importlib.metadata.version(name) for name in _TOOLS}
    return Provenance(checkpoint.config.model_type, {file.name: sha256_of(file) for file in files}, versions)


def _expected_bytes(checkpoint: Checkpoint, chosen: Collection[str]) -> int:
    float32 = 4
    return sum(float32 * math.prod(shape) for name, shape in checkpoint.reader.items() if component_of(name) in chosen)


def _spec(name: str, tensor: Tensor, axes: Axes) -> TensorSpec:
    shape = tuple(axes.get(axis, length) for axis, length in enumerate(tensor.shape))
    return TensorSpec(name, str(tensor.dtype).removeprefix("torch."), shape)


def _write_array(writer: BundleWriter, relative: str, tensor: Tensor) -> File:
    path = writer.path(relative)
    np.save(path, tensor.contiguous().numpy(), allow_pickle=False)
    return writer.record(path)


def _write_text(writer: BundleWriter, relative: str, text: str) -> File:
    path = writer.path(relative)
    path.write_text(text, encoding="utf-8")
    return writer.record(path)
