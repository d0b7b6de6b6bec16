"""The language model's second graph, whose cache stays in one buffer, against the first and against torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from mova_export import artifacts, component, reference
from mova_export.artifacts import Derived, add_in_place, derive
from mova_export.checkpoint.models import MODELS
from mova_export.checkpoint.random_model import RandomModel
from mova_export.errors import ExportError
from mova_export.export import export
from mova_export.graphs.language.in_place import keep_in_place, suits
from mova_export.graphs.language.reference import CachedLlama
from mova_export.graphs.onnx import language_model, save
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.manifest import PRECISIONS
from mova_runtime.engines.ort import OrtBackend, open_engine
from mova_runtime.engines.protocol import Binding, Engine
from mova_runtime.errors import BackendError, ParityError
from mova_runtime.parity.probe import verify
from small_llama import SHAPES, cases, graph_of, held_against, llama

LLAMA3 = SHAPES["scaled positions"]
YARN = {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}}
FORMS: dict[str, dict[str, Any]] = {
    **SHAPES,
    "one head for all": {"num_key_value_heads": 1, "num_hidden_layers": 2},
    "stretched positions": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "num_hidden_layers": 2},
    "positions with a factor of their own": {**YARN, "num_hidden_layers": 2},
    "positions stretched beyond the context": {
        "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "num_hidden_layers": 2,
    },
    "tied embeddings": {"tie_word_embeddings": True, "num_hidden_layers": 2},
}  # fmt: skip
PIECES = (7, 5, 1, 1, 1)
"""What is read one after the other: a prompt in two pieces, and tokens."""

CAPACITY = 40
ON_PROCESSORS = ("fp32", "int8", "int4")


def written(module: LlamaForCausalLM, folder: Path, precision: str = "fp32") -> Derived:
    """Both graphs of a model, checked as an export checks them."""
    graph = graph_of(module)
    against = held_against(graph.expected(cases(graph)), graph)
    derived = derive(language_model(graph).clone, folder / "model.onnx", precision, against)  # type: ignore[arg-type]
    return add_in_place(derived, module.config, against)


def growing(derived: Derived) -> Engine:
    return open_engine(derived.files[0], "llm", 0, prepack=True)


def shared(derived: Derived) -> Engine:
    assert derived.in_place is not None
    return open_engine(derived.in_place, "llm", 0, prepack=True, cache="shared")


# ---- reading piece by piece ----

Step = tuple[np.ndarray, dict[str, np.ndarray]]
"""After a piece: logits [V]; keys and values [1, heads, tokens, width] by what they are called, without `present.`."""


def caches(config: LlamaConfig) -> list[str]:
    return [f"{layer}.{part}" for layer in range(config.num_hidden_layers) for part in ("key", "value")]


def embeddings(module: LlamaForCausalLM, tokens: int = sum(PIECES), seed: int = 0) -> np.ndarray:
    ids = np.random.default_rng(seed).integers(module.config.vocab_size, size=(1, tokens))
    return module.model.embed_tokens(torch.from_numpy(ids)).numpy()


def pieces(x: np.ndarray, lengths: Sequence[int]) -> list[np.ndarray]:
    return np.split(x, np.cumsum(lengths)[:-1], axis=1)


def buffers(config: LlamaConfig, capacity: int = CAPACITY) -> dict[str, np.ndarray]:
    """Of what is not a number: whatever is read beside what was written shows."""
    shape = (1, config.num_key_value_heads, capacity, config.head_dim)
    return {name: np.full(shape, np.nan, np.float32) for name in caches(config)}


def share(binding: Binding, held: dict[str, np.ndarray]) -> None:
    for name, buffer in held.items():
        binding.share(f"present.{name}", f"past_key_values.{name}", buffer)


def read(binding: Binding, x: np.ndarray, total: int) -> np.ndarray:
    """Let the model read a piece after which there are `total` tokens; logits [V]."""
    binding.set("inputs_embeds", x)
    binding.set("seqlens_k", np.array([total - 1], np.int32))
    binding.set("total_sequence_length", np.array(total, np.int32))
    binding.run()
    return np.array(binding.get("logits"))[0, 0]


def by_torch(module: LlamaForCausalLM, x: np.ndarray) -> list[Step]:
    """Every piece's end, each computed from the beginning."""
    model, steps = CachedLlama(module), []
    module.set_attn_implementation("eager")
    empty = [
        torch.empty(1, module.config.num_key_value_heads, 0, module.config.head_dim) for _ in caches(module.config)
    ]
    for total in np.cumsum(PIECES).tolist():
        ones = torch.ones(1, total, dtype=torch.int64)
        logits, *present = model(torch.from_numpy(x[:, :total]), ones, torch.arange(total)[None], *empty)
        named = {name: one.numpy() for name, one in zip(caches(module.config), present, strict=True)}
        steps.append((logits.numpy()[0, -1], named))
    return steps


def by_growing(engine: Engine, config: LlamaConfig, x: np.ndarray) -> list[Step]:
    cache = {name: np.empty((1, config.num_key_value_heads, 0, config.head_dim), np.float32) for name in caches(config)}
    steps, total = list[Step](), 0
    for piece in pieces(x, PIECES):
        past, total = total, total + piece.shape[1]
        found = engine.run(
            {
                "inputs_embeds": piece,
                "attention_mask": np.ones((1, total), np.int64),
                "position_ids": np.arange(past, total)[None],
                **{f"past_key_values.{name}": array for name, array in cache.items()},
            }
        )
        cache = {name: found[f"present.{name}"] for name in cache}
        steps.append((found["logits"][0, -1], cache))
    return steps


def by_shared(engine: Engine, config: LlamaConfig, x: np.ndarray) -> list[Step]:
    binding, held, total = engine.bind(), buffers(config), 0
    share(binding, held)
    steps = list[Step]()
    for piece in pieces(x, PIECES):
        total += piece.shape[1]
        logits = read(binding, piece, total)
        assert all(np.isnan(buffer[:, :, total:]).all() for buffer in held.values()), "it writes what is new, no more"
        steps.append((logits, {name: buffer[:, :, :total].copy() for name, buffer in held.items()}))
    return steps


def worst(some: list[Step], others: list[Step]) -> float:
    """The largest relative L2 error of an array of any step."""
    errors = []
    for (logits, cache), (expected, expected_cache) in zip(some, others, strict=True):
        pairs = [(logits, expected), *((cache[name], expected_cache[name]) for name in expected_cache)]
        errors += [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs]
        assert all(a.shape == b.shape for a, b in pairs)
    return max(errors)


@pytest.mark.parametrize("changes", FORMS.values(), ids=FORMS)
def test_a_prompt_in_pieces_and_tokens_after_it_are_torchs(changes: dict[str, Any], tmp_path: Path) -> None:
    module = llama(**changes)
    derived = written(module, tmp_path)
    x = embeddings(module)
    expected, grown = by_torch(module, x), by_growing(growing(derived), module.config, x)
    kept = by_shared(shared(derived), module.config, x)
    assert worst(grown, expected) < 5e-6
    assert worst(kept, expected) < 5e-6
    one, other = kept[-1][0], kept[-2][0]
    assert np.linalg.norm(one - other) > 0.1 * np.linalg.norm(one), "a model that always says the same proves little"


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_fewer_bits_are_the_same_in_both_graphs(precision: str, tmp_path: Path) -> None:
    """Activations are rounded to 8 bits before each product: what differs in the last bit may be rounded otherwise."""
    module = llama(attention_bias=True, **LLAMA3)
    derived = written(module, tmp_path, precision)
    x = embeddings(module)
    grown = by_growing(growing(derived), module.config, x)
    kept = by_shared(shared(derived), module.config, x)
    assert worst(kept, grown) < 0.02
    assert 1e-3 < worst(kept, by_torch(module, x)) < 0.3, "its weights were rounded"


def test_positions_far_into_the_context_are_scaled_as_torch_does(tmp_path: Path) -> None:
    module = llama(num_hidden_layers=1, max_position_embeddings=4096, **LLAMA3)
    derived = written(module, tmp_path)
    x = embeddings(module, 4096)
    ones, empty = torch.ones(1, 4096, dtype=torch.int64), torch.empty(1, 2, 0, 16)
    logits, key, _ = CachedLlama(module)(torch.from_numpy(x), ones, torch.arange(4096)[None], empty, empty)
    binding, held = shared(derived).bind(), buffers(module.config, 4096)
    share(binding, held)
    for start in range(0, 4096, 512):
        found = read(binding, x[:, start : start + 512], start + 512)
    assert np.linalg.norm(found - logits.numpy()[0, 0]) < 1e-4 * np.linalg.norm(found)
    assert np.abs(held["0.key"] - key.numpy()).max() < 1e-3
    share(binding, buffers(module.config, 5000))
    with pytest.raises(BackendError, match="cos_cache"):  # there is no position 4096
        read(binding, x[:, :1], 4097)


def test_what_was_read_can_be_taken_back(tmp_path: Path) -> None:
    """What follows is written over what was there; what is behind it does not count."""
    module = llama(num_hidden_layers=2)
    engine = shared(written(module, tmp_path))
    x, other = embeddings(module, 12), embeddings(module, 3, seed=1)
    binding, fresh = engine.bind(), engine.bind()
    share(binding, buffers(module.config))
    share(fresh, buffers(module.config))
    read(binding, x, 12)
    again = read(binding, other, 8)
    assert np.allclose(again, read(fresh, np.concatenate((x[:, :5], other), axis=1), 8), atol=1e-5)
    assert not np.allclose(again, read(binding, x[:, 5:8], 8), atol=1e-2)


# ---- the file ----


def test_inputs_and_outputs(tmp_path: Path) -> None:
    module = llama(num_hidden_layers=2)
    derived = written(module, tmp_path)
    assert derived.in_place is not None
    graph = ir.load(derived.in_place).graph
    cache = [f"past_key_values.{name}" for name in caches(module.config)]
    present = [f"present.{name}" for name in caches(module.config)]
    told = {str(v.name): (v.dtype.name, str(v.shape)) for v in (*graph.inputs, *graph.outputs)}
    assert list(told) == [
        "inputs_embeds", "seqlens_k", "total_sequence_length", *cache, "logits", *present,
    ]  # fmt: skip
    assert told["inputs_embeds"] == ("FLOAT", "[1,new,64]")
    assert (told["seqlens_k"], told["total_sequence_length"]) == (("INT32", "[1]"), ("INT32", "[]"))
    assert {told[name] for name in (*cache, *present)} == {("FLOAT", "[1,2,capacity,16]")}
    assert told["logits"] == ("FLOAT", "[1,1,101]")


@pytest.mark.parametrize("precision", ON_PROCESSORS)
def test_weights_are_written_once(precision: str, tmp_path: Path) -> None:
    module = llama()
    derived = written(module, tmp_path, precision)
    first, weights, second = derived.files
    assert derived.in_place == second
    assert sorted(tmp_path.iterdir()) == sorted(derived.files)

    def outside(path: Path) -> dict[str, tuple[str, int | None, int | None]]:
        held = ir.load(path).graph.initializers.values()
        tensors = [value.const_value for value in held if isinstance(value.const_value, ir.ExternalTensor)]
        return {str(t.name): (str(t.location), t.offset, t.length) for t in tensors}

    here, there = outside(first), outside(second)
    assert there.items() <= here.items()
    assert {place for place, *_ in there.values()} == {weights.name}
    products = [name for name in here if "proj" in name or "lm_head" in name]
    assert len(products) >= 5 * 7 + 1
    assert set(products) <= set(there)
    tables = 2 * 4 * 2048 * 8
    assert second.stat().st_size < tables + first.stat().st_size


def test_nothing_is_left_of_masks_and_rotary_embeddings(tmp_path: Path) -> None:
    module = llama(**YARN)
    derived = written(module, tmp_path)
    assert derived.in_place is not None
    graph = ir.load(derived.in_place).graph
    attention = [node for node in graph if node.op_type == "GroupQueryAttention"]
    assert [node.name for node in attention] == [
        f"/model/layers.{layer}/self_attn/GroupQueryAttention" for layer in range(5)
    ]
    assert all(node.attributes.get_int("num_heads") == 4 for node in attention)
    assert {node.op_type for node in graph}.isdisjoint({"Softmax", "Where", "Expand", "Concat", "Sin", "Cos", "Neg"})
    assert len(list(graph)) < 5 * 30
    assert set(graph.initializers) == {
        value.name for node in graph for value in node.inputs if value is not None and value.is_initializer()
    }, "no constant that nobody reads"
    cos, sin = (graph.initializers[f"rotary.{name}"].const_value.numpy() for name in ("cos", "sin"))
    rotary = LlamaRotaryEmbedding(module.config)
    expected = rotary(torch.zeros(1), torch.arange(2048)[None])
    assert rotary.attention_scaling > 1.1
    for found, table in zip((cos, sin), expected, strict=True):
        assert found.shape == (2048, 8)
        np.testing.assert_array_equal(np.concatenate((found, found), axis=1), table[0].numpy())


# ---- what can't be kept in place ----


def softmax(model: ir.Model) -> ir.Node:
    return next(node for node in model.graph if node.op_type == "Softmax" and "layers.2/" in str(node.name))


def after(model: ir.Model, value: ir.Value, node: ir.Node, dtype: ir.DataType = ir.DataType.FLOAT) -> None:
    """Put a node between a value and whoever reads it."""
    result, producer = node.outputs[0], value.producer()
    result.name, result.dtype, result.shape = f"{node.name}_output_0", dtype, value.shape
    readers = [(reader, index) for reader, index in value.uses() if reader is not node]
    for reader, index in readers:
        reader.replace_input_with(index, result)
    model.graph.insert_after(producer, node)


def with_capped_scores(model: ir.Model) -> None:
    scores = softmax(model).inputs[0]
    after(model, scores, ir.node("Tanh", [scores], name="/model/layers.2/self_attn/Tanh"))


def with_another_softmax(model: ir.Model) -> None:
    softmax(model).op_type = "LogSoftmax"


def with_normalised_queries(model: ir.Model) -> None:
    query = next(n for n in model.graph if n.name == "/model/layers.2/self_attn/q_proj/MatMul").outputs[0]
    tensor = ir.Tensor(np.full(64, 2.0, np.float32), name="norm")
    weight = ir.Value(name="norm", shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(weight)
    after(model, query, ir.node("Mul", [query, weight], name="/model/layers.2/self_attn/q_norm/Mul"))


def without_a_mask(model: ir.Model) -> None:
    scores = softmax(model).inputs[0].producer()
    softmax(model).replace_input_with(0, scores.inputs[0])


def without_rotated_keys(model: ir.Model) -> None:
    rotated = next(n for n in model.graph if n.name == "/model/layers.2/self_attn/Add_1")
    products = [value.producer() for value in rotated.inputs]
    ir.convenience.replace_all_uses_with(rotated.outputs[0], products[0].inputs[0])


def with_another_name(model: ir.Model) -> None:
    for node in model.graph:
        node.name = str(node.name).replace("layers.2/self_attn/k_proj", "layers.2/self_attn/key")


def with_a_cache_that_is_not_read(model: ir.Model) -> None:
    value = next(v for v in model.graph.inputs if v.name == "past_key_values.2.value")
    other = next(v for v in model.graph.inputs if v.name == "past_key_values.2.key")
    ir.convenience.replace_all_uses_with(value, other)


CHANGES = (
    with_capped_scores, with_another_softmax, with_normalised_queries, without_a_mask, without_rotated_keys,
    with_another_name, with_a_cache_that_is_not_read,
)  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of four layers."""
    folder = tmp_path_factory.mktemp("exported")
    return save(language_model(graph_of(llama(num_hidden_layers=4))), folder / "model.onnx")[0]


def test_the_form_that_is_known_is_not_refused(exported: Path) -> None:
    keep_in_place(ir.load(exported), llama(num_hidden_layers=4).config)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_attention_of_another_form_is_refused(change: Callable[[ir.Model], None], exported: Path) -> None:
    model = ir.load(exported)
    change(model)
    with pytest.raises(ExportError, match=r"llm: the attention of layer 2 has another form than the one that is known"):
        keep_in_place(model, llama(num_hidden_layers=4).config)


def test_positions_that_something_else_reads_are_refused(exported: Path) -> None:
    model = ir.load(exported)
    positions = next(value for value in model.graph.inputs if value.name == "position_ids")
    shape = ir.node("Shape", [positions], name="/model/extra")
    shape.outputs[0].name, shape.outputs[0].dtype = "extra", ir.DataType.INT64
    model.graph.append(shape)
    model.graph.outputs.append(shape.outputs[0])
    with pytest.raises(ExportError, match=r"llm: what reads position_ids is no attention that is known"):
        keep_in_place(model, llama(num_hidden_layers=4).config)


def test_whom_it_suits() -> None:
    sizes = {"hidden_size": 64, "num_attention_heads": 4}
    assert suits(LlamaConfig(**sizes))
    assert suits(LlamaConfig(**sizes, **LLAMA3))
    assert not suits(LlamaConfig(**sizes, head_dim=24)), "ONNX Runtime rotates heads of a multiple of 16"
    longrope = {"rope_type": "longrope", "factor": 2.0, "long_factor": [1.0] * 8, "short_factor": [1.0] * 8}
    assert not suits(LlamaConfig(**sizes, rope_scaling=longrope)), "how it rotates depends on the prompt's length"


def test_another_rotation_is_noticed(tmp_path: Path) -> None:
    module = llama(num_hidden_layers=2)
    graph = graph_of(module)
    against = held_against(graph.expected(cases(graph)), graph)
    derived = derive(language_model(graph).clone, tmp_path / "model.onnx", "fp32", against)
    other = LlamaConfig(**{**module.config.to_dict(), "rope_theta": 10000.0})
    with pytest.raises(ParityError, match=r"llm: output 'logits.*' is not what torch computed.*cache in place.*fault"):
        add_in_place(derived, other, against)


def test_it_is_judged_in_sections_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "SECTION", 3 * 64 * 96)
    opened, open_one = [], reference.ort.open_engine

    def noted(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append((ir.load(path).graph.name, options["cache"]))
        return open_one(path, *arguments, **options)

    monkeypatch.setattr(reference.ort, "open_engine", noted)
    written(llama(), tmp_path)
    assert sum(cache == "shared" for _, cache in opened) > 3
    assert len(list(tmp_path.iterdir())) == 3


# ---- a bundle ----

SMALL = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128,
         "num_hidden_layers": 2, "vocab_size": 400}  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., RandomModel]:
    """small(…): a MoVA whose language model is a small Llama."""
    model = MODELS["mova-8b"]

    def make(**changes: Any) -> RandomModel:
        config = {**model.config_json, **SMALL, **changes}
        monkeypatch.setitem(MODELS, "small", dataclasses.replace(model, config_json=config))
        return RandomModel("small")

    return make


def test_a_bundle_has_both_forms(small: Callable[..., RandomModel], tmp_path: Path) -> None:
    export(small(), tmp_path / "out", components=["llm"], precisions=PRECISIONS)
    bundle = Bundle.open(tmp_path / "out")
    for artifact in bundle.component("llm").artifacts:
        graph, weights, *in_place = [file.path for file in artifact.files]
        if artifact.precision in ON_PROCESSORS:
            assert artifact.in_place == f"components/llm/{artifact.precision}/model.in_place.onnx"
            assert in_place == [artifact.in_place]
        else:
            assert artifact.in_place is None
            assert in_place == []
        assert [file.path for file in artifact.files_of("growing")] == [graph, weights]
    for precision in ON_PROCESSORS:
        backend = OrtBackend("cpu", precision, 1)  # type: ignore[arg-type]
        engine = backend.load(bundle, "llm")
        assert engine.cache == "shared"
        assert verify(bundle, "llm", engine, backend.precision).passed
        assert engine.least.host == sum(file.bytes for file in bundle.artifact("llm", backend.precision).files[1:])


def test_float32_that_nobody_asked_for_has_no_second_form(
    small: Callable[..., RandomModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        component,
        "add_in_place",
        lambda derived, *rest: asked.append(derived) or artifacts.add_in_place(derived, *rest),
    )
    export(small(), tmp_path / "out", components=["llm"], precisions=["int8"])
    assert [derived.verdict.precision for derived in asked] == ["int8"]
    assert sorted(path.name for path in (tmp_path / "out/components/llm").iterdir() if path.is_dir()) == [
        "int8", "probe", "probe-no-cache", "probe-one-token",
    ]  # fmt: skip


def test_a_model_that_it_does_not_suit_is_exported_without(small: Callable[..., RandomModel], tmp_path: Path) -> None:
    export(small(hidden_size=96), tmp_path / "out", components=["llm"], precisions=["fp32"])
    bundle = Bundle.open(tmp_path / "out")
    artifact = bundle.artifact("llm", "fp32")
    assert artifact.in_place is None
    assert len(artifact.files) == 2
    engine = OrtBackend("cpu", "fp32", 1).load(bundle, "llm")
    assert engine.cache == "growing"
    assert verify(bundle, "llm", engine, "fp32").passed
