"""`mova export --preset`: published shapes, random weights that are a function of the seed, a bundle like any other."""

from __future__ import annotations

import dataclasses
import gc
import math
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import mova_runtime
from command_line import Done, MovaCommand
from mova_export.artifacts import Derived
from mova_export.checkpoint.layout import COMPONENTS, component_of, published_name
from mova_export.checkpoint.load import Checkpoint
from mova_export.checkpoint.models import MODELS, PublishedModel
from mova_export.checkpoint.random_model import RandomModel
from mova_export.demo.weights import random_tensor
from mova_export.errors import ExportError
from mova_export.export import export
from mova_export.graphs.components import component_graph
from mova_export.modules.adapter.adapter import MovAdapter
from mova_export.modules.codetr import CodetrConfig
from mova_export.modules.sam import SamConfig
from mova_export.peak import PeakMemory, resident_bytes
from mova_runtime.bundle import Bundle
from reference_data import cases

MakePath = Callable[[int], Path]

RANDOM = ("--preset", "reduced", "--random-weights")
ALL = ",".join(COMPONENTS)
MIB = 2**20


def reduced(model: PublishedModel) -> PublishedModel:
    """The same model with a layer or two of everything, narrow, on a grid of 8, over images of 256 pixels."""
    sam, codetr = model.sizes["sam"], model.sizes["codetr"]
    assert isinstance(sam, SamConfig)
    assert isinstance(codetr, CodetrConfig)
    small = {"width": 64, "hidden": 128, "heads": 2, "grid": 16, "windows": (14, 16)}
    configs = {
        "base": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128},
        "dinov2": {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3},
        "pix2struct": {"hidden_size": 96, "num_hidden_layers": 1, "num_attention_heads": 3, "d_kv": 32, "d_ff": 64},
        "deplot": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "d_kv": 16, "d_ff": 64},
        "text": {"hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128},
    }
    patches = {"max_patches": 144, "patch": 16}
    return dataclasses.replace(
        model,
        config_json={
            **model.config_json,
            "image_feat_size": 8,
            "num_routing_tokens": 4,
            "mm_hidden_size": 128,
            "num_projector_layers": 1,
            "hidden_size": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "vocab_size": 300,
            "expert_channels": [96, 512, 256, 96, 48, 192, 256],
        },
        configs={name: {**model.config(name), **changes} for name, changes in configs.items()},
        processors={
            **model.processors,
            "vary": {**model.processor("vary"), "resize": 256, "side": 256},
            "pix2struct": patches,
            "deplot": patches,
        },
        sizes={
            "sam": dataclasses.replace(sam, **small),
            "vary": dataclasses.replace(model.sizes["vary"], **small),
            "codetr": dataclasses.replace(
                codetr, width=64, hidden=170, heads=2, patch=64, grid=20, position_grid=20, windows=(16, 20)
            ),
            "biomedclip": dataclasses.replace(model.sizes["biomedclip"], width=192, hidden=384, depth=1),
        },
    )


@pytest.fixture(autouse=True)
def preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "reduced", reduced(MODELS["mova-8b"]))


def assert_user_error(done: Done, text: str) -> None:
    assert done.status == 2
    assert len(done.error_lines) == 1
    assert text in done.error
    assert "Traceback" not in done.error


# ---- the bundle ----


def test_a_preset_becomes_a_bundle_that_answers(tmp_path: Path, mova_command: MovaCommand) -> None:
    out, only = tmp_path / "bundle", ["base", "biomedclip", "text", "adapter", "llm"]
    ran = mova_command("export", *RANDOM, "--out", out, "--only", ",".join(only), "--seed", 3)
    assert ran.status == 0, ran.error
    *lines, last = ran.output.splitlines()
    assert [line.split("]")[1].split()[0] for line in lines] == only
    assert all(" s  " in line and "iB of memory  differs from torch by" in line for line in lines)
    assert last.endswith("of memory at most")

    provenance = Bundle.open(out).manifest.provenance
    assert provenance.model_type == "reduced, random weights of seed 3"
    assert provenance.checkpoint == {}
    assert "random weights of seed 3" in mova_command("inspect", out).output
    case = cases(2)[0]
    with mova_runtime.open(out) as rt:
        visual = rt.encode(case.image, case.question, experts=("biomedclip",))
        answer = rt.answer(case.image, case.question, experts=("biomedclip",), max_new_tokens=4)
    assert visual.tokens.shape == (16, 64)
    assert "llm" in answer.stats.engines_loaded


@pytest.mark.parametrize("component", ALL.split(","))
def test_random_weights_degenerate_nowhere(component: str) -> None:
    """What torch makes of the probe: every channel has something of its own to say at every position."""
    source = RandomModel("reduced")
    source.check([component])
    graph = component_graph(source, component)
    with torch.no_grad():
        found = tuple(graph.expected({"": graph.probe})[""].outputs.values())
    for output in found:
        assert torch.isfinite(output).all()
        assert 1e-2 < output.std() < 1e2
    if component == "adapter":
        gates = found[1]
        assert gates.sum(dim=-1).allclose(torch.ones(()))
        assert gates.count_nonzero() == 3  # of the probe's three pairs, none weighs nothing
    else:
        assert component == "llm" or found[0].flatten(0, -2).std(dim=0).min() > 1e-3  # logits are of one position


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, mova_command: MovaCommand) -> None:
    """The default seed is 0."""
    found = []
    for name, arguments in {"default": (), "zero": ("--seed", 0)}.items():
        ran = mova_command("export", *RANDOM, "--out", tmp_path / name, "--only", "deplot", *arguments)
        assert ran.status == 0, ran.error
        found.append(Bundle.open(tmp_path / name).manifest)
    assert found[0] == found[1]


def test_another_seed_gives_other_weights() -> None:
    zero, one = (RandomModel("reduced", seed).reader for seed in (0, 1))
    for name in zero:
        assert torch.equal(zero.tensor(name), one.tensor(name)) == ("freqs_" in name), name


def test_weights_are_those_of_a_checkpoint_with_the_same_shapes(checkpoint: MakePath) -> None:
    """But for Pix2Struct's queries, which are smaller where heads are larger, and the language model's."""
    source, stored = RandomModel("reduced", seed=2), Checkpoint(checkpoint(2)).reader
    alike = [name for name, shape in source.reader.items() if stored.get(name) == shape and ".query." not in name]
    assert {component_of(name) for name in alike} >= {"dinov2", "vary", "codetr", "deplot", "biomedclip", "sam"}
    for name in [name for name in alike if component_of(name) != "llm"][::7]:
        assert torch.equal(source.reader.tensor(name), stored.tensor(name)), name
    name = "model.vision_tower.vision_tower_5.encoder.layer.1.attention.query.weight"
    expected = torch.from_numpy(random_tensor(name, source.reader[name], 2)) / math.sqrt(16)
    torch.testing.assert_close(source.reader.tensor(name), expected)


def test_a_component_is_made_when_it_is_loaded_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from mova_export.checkpoint import random_model

    made = []

    def noted(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
        array = random_tensor(name, shape, seed)
        made.append((name, weakref.ref(array)))
        return array

    monkeypatch.setattr(random_model, "random_tensor", noted)
    source = RandomModel("reduced")
    source.check(["sam", "deplot"])
    assert not made
    module = source.load("sam")
    assert {component_of(name) for name, _ in made if "freqs_" not in name} == {"sam"}  # tables are everyone's
    assert len({name for name, _ in made}) == len(made)
    del module
    gc.collect()
    assert all(array() is None for _, array in made)


def test_a_components_weights_are_freed_once_torch_has_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever else refers to them: by then torch's exporter does."""
    held: list[torch.Tensor] = []
    load = RandomModel.load

    def noted(self: RandomModel, component: str) -> torch.nn.Module:
        module = load(self, component)
        held.extend(module.state_dict(keep_vars=True).values())
        return module

    def derived(*_: object) -> Derived:
        assert held
        assert all(tensor.numel() == 0 for tensor in held)
        raise KeyError("seen")

    monkeypatch.setattr(RandomModel, "load", noted)
    monkeypatch.setattr("mova_export.component.derive", derived)
    with pytest.raises(KeyError, match="seen"):
        export(RandomModel("reduced"), tmp_path / "bundle", components=["deplot"])


# ---- published shapes, without memory ----

PUBLISHED = {
    "base": 303.5e6 + 1.73e6,  # CLIP ViT-L/14 at 336 pixels, and more positions for the grid of 48
    "dinov2": 1136e6,
    "vary": 89.7e6 + 1.2e6,  # SAM's ViT-B, and a strided convolution
    "codetr": 304e6 + 6.6e6,  # EVA-02-L, and positions for 1280 pixels
    "pix2struct": 512e6,
    "deplot": 92e6,
    "biomedclip": 86e6,
    "sam": 637e6,
    "text": 334e6,
    "llm": 8030e6,
}
"""Parameters of towers and language model as published, without pooling heads and decoders."""


def test_mova_8b_has_the_published_numbers_of_parameters() -> None:
    shapes = RandomModel("mova-8b").reader
    for component, published in PUBLISHED.items():
        tower = sum(
            math.prod(shape)
            for name, shape in shapes.items()
            if component_of(name) == component and "mm_projector.blocks" not in name and "freqs_" not in name
        )
        assert tower == pytest.approx(published, rel=0.02), component


def test_every_component_of_the_published_models_can_be_built() -> None:
    for name, hidden in {"mova-7b": 4096, "mova-8b": 4096, "mova-34b": 7168}.items():
        source = RandomModel(name)
        source.check()
        adapter = source._blueprint("adapter")
        assert isinstance(adapter, MovAdapter)
        assert (adapter.config.tokens, adapter.config.visual_tokens, adapter.config.hidden) == (2304, 576, hidden)
        assert all(parameter.device.type == "meta" for parameter in adapter.parameters())
    assert source.config.expert_channels == (1536, 512, 256, 1536, 768, 768, 256)


@pytest.mark.parametrize(
    ("component", "key", "shape"),
    [
        ("base", "vision_model.embeddings.position_embedding.weight", (1 + 48**2, 1024)),
        ("base", "vision_model.encoder.layers.23.mlp.fc1.weight", (4096, 1024)),
        ("dinov2", "tower.model.encoder.layer.39.mlp.weights_in.weight", (8192, 1536)),
        ("dinov2", "tower.model.embeddings.position_embeddings", (1, 1 + 37**2, 1536)),
        ("vary", "tower.blocks.11.attn.rel_pos_h", (127, 64)),
        ("vary", "tower.net_2.weight", (512, 256, 3, 3)),
        ("codetr", "tower.blocks.23.attn.rope.freqs_cos", (6400, 64)),
        ("codetr", "tower.blocks.22.attn.rope.freqs_cos", (256, 64)),
        ("pix2struct", "tower.model.encoder.layer.17.mlp.wi_0.weight", (3968, 1536)),
        ("deplot", "tower.model.encoder.layer.11.mlp.wi_0.weight", (2048, 768)),
        ("biomedclip", "tower.blocks.11.attn.qkv.weight", (2304, 768)),
        ("sam", "tower.blocks.31.attn.rel_pos_h", (127, 80)),
        ("sam", "tower.blocks.30.attn.rel_pos_h", (27, 80)),
        ("sam", "blocks.2.k_proj.weight", (1024, 256)),
        ("text", "bert.encoder.layer.23.output.dense.weight", (1024, 4096)),
        ("adapter", "blocks.2.cross_attn.6.q_proj.weight", (1024, 1024)),
        ("adapter", "mlp.2.weight", (4096, 4096)),
        ("llm", "model.layers.31.mlp.down_proj.weight", (4096, 14336)),
        ("llm", "model.layers.0.self_attn.v_proj.weight", (1024, 4096)),
        ("llm", "lm_head.weight", (128256, 4096)),
    ],
)
def test_a_published_shape(component: str, key: str, shape: tuple[int, ...]) -> None:
    assert RandomModel("mova-8b").reader[published_name(component, key)] == shape


def test_the_tiny_checkpoints_names_are_the_presets(checkpoint: MakePath) -> None:
    """No tower of a preset has a parameter that a checkpoint of the published layout lacks, whatever the depth."""

    def pattern(name: str) -> str:
        return ".".join("N" if part.isdigit() else part for part in name.split("."))

    stored = {pattern(name) for name in Checkpoint(checkpoint(2)).reader}
    assert {pattern(name) for name in RandomModel("mova-8b").reader} <= stored


# ---- mistakes ----


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((*RANDOM, "--only", "eyes"), "unknown component eyes"),
        ((*RANDOM, "--only", "deplot", "--seed", "-1"), "seed -1: expected 0 to 2147483647"),
        ((*RANDOM, "--only", "deplot", "--seed", str(2**31)), "seed 2147483648: expected 0 to 2147483647"),
        ((*RANDOM, "--only", "deplot", "--seed", "x"), "invalid int value: 'x'"),
        ((*RANDOM, "--only", "deplot", "--tower", "base=/tmp"), "--tower belongs to a checkpoint"),
        ((*RANDOM, "--only", "deplot", "--template", "vicuna_v1"), "stop token"),
        (("--preset", "mova-9b", "--random-weights"), "unknown preset 'mova-9b'; one of mova-7b, mova-8b, mova-34b"),
        (("--preset", "reduced"), "--preset reduced: a preset has no weights of its own; pass --random-weights too"),
        (("CHECKPOINT", *RANDOM), "--preset reduced and CHECKPOINT: one of them, not both"),
        (("CHECKPOINT", "--random-weights"), "--random-weights needs --preset NAME"),
        (("CHECKPOINT", "--seed", "1"), "--seed needs --preset NAME"),
        (("--random-weights",), "--random-weights needs --preset NAME"),
        ((), "pass a CHECKPOINT, or --preset NAME --random-weights"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: tuple[str, ...], text: str, tmp_path: Path, mova_command: MovaCommand
) -> None:
    assert_user_error(mova_command("export", *arguments, "--out", tmp_path / "bundle"), text)
    assert list(tmp_path.iterdir()) == []


def test_a_seed_is_checked_before_anything_is_made() -> None:
    with pytest.raises(ExportError, match="seed -3"):
        RandomModel("mova-8b", -3)


# ---- memory ----


def test_peak_memory_is_that_of_a_moment_in_between() -> None:
    def fill() -> None:
        array = np.ones(256 * MIB, dtype=np.uint8)
        time.sleep(0.2)  # longer than the watcher's step, even on a busy machine
        del array

    with PeakMemory() as memory:
        before = resident_bytes()
        memory.take()
        filling = threading.Thread(target=fill)
        filling.start()
        filling.join()
        assert memory.take() > before + 200 * MIB
        assert memory.take() < before + 100 * MIB


def test_without_a_process_file_the_systems_record_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = resident_bytes()
    monkeypatch.setattr("mova_export.peak._STATM", tmp_path / "none")
    assert resident_bytes() >= 0.9 * now
