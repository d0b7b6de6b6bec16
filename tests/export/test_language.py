"""The language model's graph: what optimum-onnx would export of the whole, made without the whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from transformers import LlamaConfig

from mova_export import artifacts, reference
from mova_export.artifacts import derive
from mova_export.checkpoint.models import MODELS
from mova_export.checkpoint.random_model import RandomModel
from mova_export.checkpoint.tensors import HeldTensors
from mova_export.errors import ExportError
from mova_export.export import Progress, _expected_bytes, export
from mova_export.graphs.language.graph import LanguageGraph, language_graph
from mova_export.graphs.language.repeat import LAYERS, repeat
from mova_export.graphs.language.template import EmbeddingsLlama, template, traced
from mova_export.graphs.onnx import OPSET, language_model
from mova_export.graphs.sections import sections
from mova_export.peak import resident_bytes
from mova_export.reference import Reference
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.manifest import PRECISIONS
from small_llama import SHAPES, cases, graph_of, held_against, llama

MIB = 2**20


# ---- the graph ----


def nodes(model: ir.Model) -> list[tuple[object, ...]]:
    """Every node with its attributes, and where each of its inputs comes from: a node's place, or an outer name."""
    place = {value: (index, at) for index, node in enumerate(model.graph) for at, value in enumerate(node.outputs)}
    return [
        (
            node.op_identifier(),
            {k: v.value.numpy().tolist() if v.type == ir.AttributeType.TENSOR else v.value
             for k, v in node.attributes.items()},
            [None if value is None else place.get(value, value.name) for value in node.inputs],
        )
        for node in model.graph
    ]  # fmt: skip


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_it_is_what_optimum_exports_of_the_whole(changes: dict[str, Any]) -> None:
    """Node for node, in the same order, with the same weights under the same names."""
    module = llama(**changes)
    ours = language_model(graph_of(module))
    module.__class__ = EmbeddingsLlama
    with torch.no_grad():
        theirs = traced(module, OPSET)
    assert nodes(ours) == nodes(theirs)
    for mine, other in ((ours.graph.inputs, theirs.graph.inputs), (ours.graph.outputs, theirs.graph.outputs)):
        assert [(v.name, v.dtype, str(v.shape)) for v in mine] == [(v.name, v.dtype, str(v.shape)) for v in other]
    weights, others = ours.graph.initializers, theirs.graph.initializers
    assert set(weights) == set(others)
    for name, value in weights.items():
        assert np.array_equal(value.const_value.numpy(), others[name].const_value.numpy()), name
    assert any(name.endswith("layers.0.mlp.down_proj.weight.T") for name in weights)


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_torchs_answer_is_the_whole_models(changes: dict[str, Any]) -> None:
    """Layer by layer it computes the same, to the last bit."""
    module = llama(**changes)
    graph = graph_of(module)
    found = graph.expected(cases(graph))
    for case, inputs in cases(graph).items():
        outputs = graph.reference(*inputs.values())
        assert list(found[case].outputs) == list(graph.outputs)
        for name, tensor in zip(graph.outputs, outputs, strict=True):
            assert torch.equal(found[case].outputs[name], tensor), (case, name)
    assert found["one token"].operations < found["no cache"].operations < found[""].operations
    macs = sum(p.numel() for name, p in module.named_parameters() if "proj" in name and p.ndim == 2)
    assert found["one token"].operations > 2 * (macs + module.lm_head.weight.numel())


def test_its_weights_are_read_once_for_torchs_answer_and_none_is_kept() -> None:
    module = llama()
    asked: list[str] = []

    class Noted(HeldTensors):
        def tensor(self, name: str) -> torch.Tensor:
            asked.append(name)
            return super().tensor(name)

    graph = language_graph(module.config, Noted(module.state_dict()))
    asked.clear()
    graph.expected(cases(graph))
    assert sorted(asked) == sorted(name for name in module.state_dict() if "embed_tokens" not in name)
    asked.clear()
    language_model(graph)
    assert not asked, "a graph is made without its weights"


@pytest.mark.parametrize("name", ["mova-7b", "mova-8b", "mova-34b"])
def test_the_published_models_graphs_have_all_of_their_weights(name: str) -> None:
    """Made in no time, with nothing of them in memory."""
    source = RandomModel(name)
    config = LlamaConfig(**source.config.llama)
    graph = LanguageGraph(config, source.weights("llm"), {}, {}, {}, {})
    model = language_model(graph)
    held = {key.removesuffix(".T"): value for key, value in model.graph.initializers.items() if "." in key}
    weights = {key: shape for key, shape in graph.weights.items() if "embed_tokens" not in key}
    assert {key: tuple(sorted(value.shape.numpy())) for key, value in held.items()} == {
        key: tuple(sorted(shape)) for key, shape in weights.items()
    }
    assert f"present.{config.num_hidden_layers - 1}.value" == model.graph.outputs[-1].name
    widths = {str(value.name): value.shape[-1] for value in (*model.graph.inputs, *model.graph.outputs)}
    assert (widths["inputs_embeds"], widths["logits"]) == (config.hidden_size, config.vocab_size)


# ---- templates that are not as expected ----


@pytest.mark.parametrize("where", ["attribute", "operator", "input", "length"])
def test_layers_of_another_form_are_refused(where: str) -> None:
    model = template(llama().config, LAYERS, OPSET)
    node = next(n for n in reversed(model.graph) if n.op_type == "Softmax")
    if where == "attribute":
        node.attributes.add(ir.AttrInt64("axis", 1))
    elif where == "operator":
        node.op_type = "LogSoftmax"
    elif where == "input":
        first = next(n for n in model.graph if n.op_type == "Softmax")
        node.replace_input_with(0, first.inputs[0])
    else:
        last = [n for n in model.graph if n.name and "layers.2/" in n.name][-1]
        extra = ir.node("Identity", [last.outputs[0]], name="/model/layers.2/extra")
        extra.outputs[0].name = "/model/layers.2/extra_output_0"
        model.graph.insert_after(last, extra)
    with pytest.raises(ExportError, match=r"llm: .*layer"):
        repeat(model, 5, lambda name, tensor: tensor)


def test_a_weight_that_the_model_has_not_is_refused() -> None:
    module = llama()
    state = {name: t for name, t in module.state_dict().items() if "layers.3.mlp.up_proj" not in name}
    with pytest.raises(ExportError, match=r"has a weight model.layers.3.mlp.up_proj.weight.T, which the model has not"):
        language_model(language_graph(module.config, HeldTensors(state)))


# ---- sections ----


def test_sections_together_are_the_whole() -> None:
    module = llama()
    whole = language_model(graph_of(module))
    limit = 2 * 64 * 96
    count = len(list(whole.graph))
    parts = list(sections(whole, limit))
    assert len(parts) > 5
    assert (
        sum(len(list(part.graph)) for part in parts) == sum(node.op_type != "Constant" for node in whole.graph) < count
    )
    seen = {value.name for value in whole.graph.inputs}
    for part in parts:
        weights = [value.const_value.size for value in part.graph.initializers.values()]
        assert sum(weights) <= limit or sum(size > 16 for size in weights) == 1
        assert {value.name for value in part.graph.inputs} <= seen
        seen |= {value.name for value in part.graph.outputs}
    assert {value.name for value in whole.graph.outputs} <= seen


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_graph_judged_in_sections_is_judged_as_the_whole(
    precision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_of(llama())
    against = held_against(graph.expected(cases(graph)), graph)
    verdicts = []
    for limit in (1 << 40, 3 * 64 * 96):
        monkeypatch.setattr(reference, "SECTION", limit)
        derived = derive(language_model(graph).clone, tmp_path / str(limit) / "model.onnx", precision, against)
        assert sorted(path.name for path in (tmp_path / str(limit)).iterdir()) == ["model.onnx", "model.onnx.data"]
        verdicts.append(derived.verdict)
    one, other = verdicts
    assert [difference.output for difference in one.outputs] == [difference.output for difference in other.outputs]
    for a, b in zip(one.outputs, other.outputs, strict=True):
        # Between operators ONNX Runtime rounds fewer values to 16 bits than between sections.
        assert b.relative_l2 == pytest.approx(a.relative_l2, rel=1, abs=2e-6)


def test_a_wrong_weight_is_noticed_in_whatever_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "SECTION", 64 * 96)
    module = llama()
    graph = graph_of(module)
    against = held_against(graph.expected(cases(graph)), graph)
    assert against.judge(language_model(graph), tmp_path, "fp32").passed
    module.model.layers[3].mlp.up_proj.weight[0] += 1
    verdict = against.judge(language_model(graph), tmp_path, "fp32")
    assert not verdict.passed
    below = [output.output for output in verdict.outputs if not verdict.bar.passes(output)]
    assert below == [f"{name}{case}" for case in ("", " (no cache)", " (one token)") for name in (
        "logits", "present.4.key", "present.4.value")]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_fewer_bits_are_found_from_matrices_rounded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bisection of int4: no matrix is rounded to the same bits twice."""
    graph = graph_of(llama(num_hidden_layers=8))
    against = held_against(graph.expected(cases(graph)), graph)
    saved, asked, rounded = [], [], []
    save, save_weights, judge = artifacts.save, artifacts.save_weights, Reference.judge

    def noted(model: ir.Model, path: Path) -> list[Path]:
        saved.append(path.name)
        return save(model, path)

    def noted_too(weights: list[ir.Value], path: Path) -> list[Path]:
        rounded.extend(value.name for value in weights)
        return save_weights(weights, path)

    def counted(self: Reference, *arguments: Any) -> Any:
        verdict = judge(self, *arguments)
        asked.append(verdict)
        worse = [dataclasses.replace(one, relative_l2=one.relative_l2 * (5 if len(asked) in (1, 2) else 0.01))
                 for one in verdict.outputs]  # fmt: skip
        return dataclasses.replace(verdict, outputs=tuple(worse))

    monkeypatch.setattr(artifacts, "save", noted)
    monkeypatch.setattr(artifacts, "save_weights", noted_too)
    monkeypatch.setattr(Reference, "judge", counted)
    derived = derive(language_model(graph).clone, tmp_path / "model.onnx", "int4", against)
    assert saved == ["model.onnx", "model.onnx"], "all in 4 bits, and what was chosen"
    assert len(asked) > 3
    assert len(rounded) == len(set(rounded))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    bits = [
        node.attributes.get_int("bits") for node in ir.load(derived.files[0]).graph if node.op_type == "MatMulNBits"
    ]
    told = int(next(words for words in derived.kept.int8 if words.endswith("matrices")).split()[0])
    assert bits.count(8) == told
    assert 0 < told < len(bits) == 8 * 7 + 1
    monkeypatch.undo()
    again = against.judge(ir.load(derived.files[0]), tmp_path, "int4")
    assert again.outputs in [verdict.outputs for verdict in asked]


# ---- memory ----

MIDDLE = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8, "num_attention_heads": 16,
    "num_key_value_heads": 4, "vocab_size": 4000,
}  # fmt: skip
"""A model of 127 million parameters, 15 million a layer."""


def test_a_model_is_never_in_memory_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["mova-8b"]
    small = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128}
    for name, changes in (("middle", MIDDLE), ("small", {**MIDDLE, **small})):
        monkeypatch.setitem(MODELS, name, dataclasses.replace(model, config_json={**model.config_json, **changes}))
    monkeypatch.setattr(reference, "SECTION", 1 << 24)
    export(RandomModel("small"), tmp_path / "small", components=["llm"], precisions=PRECISIONS)  # code and threads
    before, peaks = resident_bytes(), dict[str, int]()

    def finished(progress: Progress) -> None:
        peaks[progress.artifact.precision] = progress.peak_bytes - before

    out = tmp_path / "middle"
    export(RandomModel("middle"), out, components=["llm"], precisions=("fp32", "bf16", "int4"), finished=finished)
    parameters = Bundle.open(out).manifest.components["llm"].parameters
    whole = 4 * parameters
    assert whole > 450 * MIB
    assert all(peak < whole / 2 for peak in peaks.values()), {name: peak / whole for name, peak in peaks.items()}


def test_float32_that_nobody_asked_for_is_never_on_disk_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "SECTION", 64 * 96)
    graph = graph_of(llama())
    sizes = []
    save = reference.save

    def noted(model: ir.Model, path: Path) -> list[Path]:
        files = save(model, path)
        sizes.append(sum(file.stat().st_size for file in path.parent.rglob("*.data")))
        return files

    monkeypatch.setattr(reference, "save", noted)
    against = held_against(graph.expected(cases(graph)), graph)
    assert against.judge(language_model(graph), tmp_path, "fp32").passed
    assert len(sizes) > 5
    assert max(sizes) <= 4 * 64 * 101 + 4096 < graph.parameters


# ---- random weights ----


def test_a_random_language_model_speaks_of_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations neither vanish nor grow without bound, and positions differ."""
    model = MODELS["mova-8b"]
    monkeypatch.setitem(
        MODELS, "deep", dataclasses.replace(model, config_json={**model.config_json, **{
            "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 32, "num_attention_heads": 8,
            "num_key_value_heads": 2, "vocab_size": 500}})
    )  # fmt: skip
    source = RandomModel("deep", seed=5)
    graph = language_graph(LlamaConfig(**source.config.llama), source.weights("llm"))
    found = graph.expected(cases(graph))
    logits = {case: made.outputs["logits"] for case, made in found.items()}
    assert all(torch.isfinite(tensor).all() and 0.3 < tensor.std() < 3 for tensor in logits.values())
    assert not torch.allclose(logits[""], logits["no cache"], atol=0.1)
    for layer in (0, 31):
        values = found[""].outputs[f"present.{layer}.value"]
        assert 0.1 < values[:, :, 3:].std() < 10
    again, other = RandomModel("deep", seed=5).reader, RandomModel("deep", seed=6).reader
    for name in source.reader:
        if name.startswith(("model.layers.7.", "lm_head")):
            assert torch.equal(source.reader.tensor(name), again.tensor(name))
            assert not torch.equal(source.reader.tensor(name), other.tensor(name))
    q, k = (source.reader.tensor(f"model.layers.7.self_attn.{part}_proj.weight") for part in "kv")
    assert not torch.equal(q, k)
    assert float(q.std()) == pytest.approx(256**-0.5, rel=0.02)


def test_room_is_asked_for_what_is_written_and_not_for_float32_that_is_not() -> None:
    source = RandomModel("mova-8b")
    needs = {precision: _expected_bytes(source, {"llm": [precision]}) for precision in PRECISIONS}
    assert 32.1e9 < needs["fp32"] < 33e9
    assert needs["int4"] <= needs["int8"] < 13e9 < needs["bf16"] == needs["fp16"] < 20e9
    assert _expected_bytes(source, {"deplot": ["int8"]}) > 5.7 * 92e6, "a tower's float32 graph is written first"
    both = _expected_bytes(source, {"deplot": ["fp32"], "llm": ["int4"]})
    assert both == pytest.approx(needs["int4"] + _expected_bytes(source, {"deplot": ["fp32"]}))
