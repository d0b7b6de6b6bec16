"""A bundle that holds an adapter with random weights and nothing else.

The exporter's own way to it reads a checkpoint, and wants libraries that a machine with a GPU may lack.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from mova_export.bundle import BundleWriter
from mova_export.graphs.adapter import adapter_graph
from mova_export.graphs.graph import Graph
from mova_export.graphs.names import name_transposed
from mova_export.modules.adapter.adapter import AdapterConfig, MovAdapter
from mova_export.modules.adapter.attention import HEAD_DIM
from mova_export.modules.rotary import Rotary
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.manifest import (
    FORMAT,
    VERSION,
    Artifact,
    Component,
    Expert,
    Language,
    Manifest,
    Parity,
    PatchInput,
    PixelInput,
    Preprocessing,
    Probe,
    Prompts,
    Provenance,
    TensorSpec,
    Text,
    Vision,
)
from on_gpu.setting import Setting

OPSET = 20
_ROTARY_BASE = 10000.0


def make_adapter(setting: Setting) -> MovAdapter:
    """An adapter on the CPU in float32: matrices keep the scale of what passes through, norms are near one."""
    shape = setting.shape
    module = MovAdapter(
        AdapterConfig(
            shape.channels, shape.text_channels, shape.hidden, shape.grid, shape.blocks, shape.experts, shape.top_k
        )
    ).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = setting.draw(*parameter.shape).cpu()
            if parameter.ndim > 1 and name != "pos_embed":
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            else:
                parameter.copy_(0.1 * noise + (parameter.ndim == 1 and name.endswith("weight")))
        cosine, sine = _rotary_tables(shape.grid)
        for rotary in (one for one in module.modules() if isinstance(one, Rotary)):
            rotary.freqs_cos.copy_(cosine)
            rotary.freqs_sin.copy_(sine)
    return module.requires_grad_(False)


def write_bundle(module: MovAdapter, device: torch.device, out: Path) -> Bundle:
    """Write the adapter in float32, with the probes that an export gives it; torch's answers come from `device`."""
    graph = adapter_graph(module)
    answers: dict[str, tuple[Tensor, ...]] = {}
    module.to(device)
    for case, inputs in {"": graph.probe, **graph.more_probes}.items():
        with torch.no_grad():
            found = module(*(tensor.to(device) for tensor in inputs.values()))
        answers[case] = tuple(tensor.cpu() for tensor in found)
    module.cpu()
    with BundleWriter(out) as writer:
        path = writer.path("components/adapter/fp32/model.onnx")
        _write_graph(graph, path)
        probe, *more = [
            _probe(writer, graph, case, inputs, answers[case])
            for case, inputs in {"": graph.probe, **graph.more_probes}.items()
        ]
        files = tuple(writer.record(file) for file in (path, path.with_name(f"{path.name}.data")))
        parity = tuple(Parity(name, 0.0, 0.0) for name in graph.outputs)
        component = Component(
            inputs=tuple(_spec(name, tensor, graph.dynamic[name]) for name, tensor in graph.probe.items()),
            outputs=tuple(
                _spec(name, tensor, axes)
                for (name, axes), tensor in zip(graph.outputs.items(), answers[""], strict=True)
            ),
            parameters=graph.parameters,
            artifacts=(Artifact("onnx", "fp32", files, parity),),
            probe=probe,
            more_probes=tuple(more),
        )
        writer.finish(_manifest(writer, module.config, component))
    return Bundle.open(out)


def _write_graph(graph: Graph, path: Path) -> None:
    shapes = tuple(
        {axis: torch.export.Dim(name) for axis, name in graph.dynamic[inputs].items()} for inputs in graph.example
    )
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.module.eval(),
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
    ir.save(program.model, path, external_data=f"{path.name}.data")


def _probe(
    writer: BundleWriter, graph: Graph, case: str, inputs: dict[str, Tensor], outputs: tuple[Tensor, ...]
) -> Probe:
    place = f"components/adapter/probe-{case.replace(' ', '-') or 'first'}"
    return Probe(
        {name: writer.array(f"{place}/{name}.npy", tensor) for name, tensor in inputs.items()},
        {
            name: writer.array(f"{place}/{name}.npy", tensor)
            for name, tensor in zip(graph.outputs, outputs, strict=True)
        },
        case,
    )


def _spec(name: str, tensor: Tensor, axes: dict[int, str]) -> TensorSpec:
    shape = tuple(axes.get(axis, length) for axis, length in enumerate(tensor.shape))
    return TensorSpec(name, str(tensor.dtype).removeprefix("torch."), shape)


def _manifest(writer: BundleWriter, config: AdapterConfig, adapter: Component) -> Manifest:
    """Everything but the adapter is there for the form's sake."""
    pixels = PixelInput(14, 14, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    colours: dict[str, Any] = dict.fromkeys(("clip", "dinov2", "high", "flattened"), (0, 0, 0))
    empty = writer.text("tokenizers/none.json", "{}")
    return Manifest(
        format=FORMAT,
        version=VERSION,
        vision=Vision(
            config.grid,
            config.visual_tokens,
            config.visual_tokens,
            config.top_k,
            tuple(Expert(f"expert{number}", chr(ord("A") + number), "clip") for number in range(config.experts)),
        ),
        preprocessing=Preprocessing("pad", pixels, pixels, pixels, PatchInput(1, 16), colours),
        prompts=Prompts("none", "", "{message}", "", "", "", "", 1),
        text=Text(empty, 3, "{question}"),
        language=Language(empty, None, None, config.hidden, 1, 1, 1, 2, 1, False),
        components={"adapter": adapter},
        provenance=Provenance("none", {}, {}),
    )


def _rotary_tables(grid: int) -> tuple[Tensor, Tensor]:
    """Two-dimensional axial rotary tables, [grid², HEAD_DIM] each: half of a head turns by row, half by column."""
    frequencies = _ROTARY_BASE ** (-torch.arange(0, HEAD_DIM // 2, 2) / (HEAD_DIM / 2))
    turns = (torch.arange(grid)[:, None] * frequencies).repeat_interleave(2, dim=-1)
    rows, columns = turns[:, None].expand(grid, grid, -1), turns[None].expand(grid, grid, -1)
    angles = torch.cat((rows, columns), dim=-1).flatten(0, 1)
    return angles.cos(), angles.sin()
