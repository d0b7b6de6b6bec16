"""Reading checkpoints: every published form of one, and everything that is not."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mova_export.checkpoint.layout import COMPONENTS, component_of, is_unused, published_name
from mova_export.checkpoint.load import Checkpoint
from mova_export.errors import CheckpointError, TensorMismatchError, UnsafePickleError

MakePath = Callable[[int], Path]
INDEX = "model.safetensors.index.json"


@pytest.fixture
def copy(checkpoint: MakePath, tmp_path: Path) -> Path:
    """A checkpoint a test may change: the shards are links until they are replaced."""
    source = checkpoint(2)
    out = tmp_path / "checkpoint"
    shutil.copytree(source, out, copy_function=os.link)
    for file in out.rglob("*.json"):
        text = file.read_text()
        file.unlink()
        file.write_text(text)
    return out


def shard_of(folder: Path, name: str) -> Path:
    return folder / json.loads((folder / INDEX).read_text())["weight_map"][name]


def rewrite(shard: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(shard)
    change(tensors)
    shard.unlink()
    save_file(tensors, shard)


def edit_config(folder: Path, **fields: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(fields)
    (folder / "config.json").write_text(json.dumps(config))


def edit_index(folder: Path, change: Callable[[dict[str, str]], None]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


# ---- what is a checkpoint ----


def test_a_whole_checkpoint_passes(checkpoint: MakePath) -> None:
    Checkpoint(checkpoint(2)).check()


def test_every_tensor_belongs_to_one_component(checkpoint: MakePath) -> None:
    opened = Checkpoint(checkpoint(2))
    loaded = {published_name(name, key) for name in COMPONENTS for key in opened._blueprint(name).state_dict()}
    for name in opened.reader:
        assert name in loaded or is_unused(name), name
        assert component_of(name) in COMPONENTS, name


def as_single(folder: Path) -> None:
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(shard)
        shard.unlink()
    save_file(tensors, folder / "model.safetensors")
    (folder / INDEX).unlink()


def as_pickled(folder: Path, *, zipped: bool = True) -> None:
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    for shard in sorted(folder.glob("*.safetensors")):
        pickled = shard.name.replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        torch.save(load_file(shard), folder / pickled, _use_new_zipfile_serialization=zipped)
        weight_map = {name: pickled if file == shard.name else file for name, file in weight_map.items()}
        shard.unlink()
    (folder / INDEX).unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize("form", [as_single, as_pickled, lambda folder: as_pickled(folder, zipped=False)])
def test_every_form_of_weights_reads_alike(form: Callable[[Path], None], copy: Path, checkpoint: MakePath) -> None:
    expected = Checkpoint(checkpoint(2)).load("sam").state_dict()
    form(copy)
    opened = Checkpoint(copy)
    opened.check()
    found = opened.load("sam").state_dict()
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key


def test_bfloat16_becomes_float32(tmp_path: Path, checkpoint: MakePath) -> None:
    from mova_export.demo.checkpoint import write_tiny_checkpoint

    write_tiny_checkpoint(tmp_path / "bf16", seed=2, dtype="bfloat16")
    opened, exact = Checkpoint(tmp_path / "bf16"), Checkpoint(checkpoint(2))
    opened.check()
    name = "model.vision_tower.vision_tower_7.blocks.0.attn.qkv.weight"
    assert opened.reader.tensor(name).dtype == torch.float32
    assert torch.equal(opened.reader.tensor(name), exact.reader.tensor(name).bfloat16().float())


# ---- what is not ----


@pytest.mark.parametrize("what", ["nothing", "a file", "an empty folder"])
def test_not_a_checkpoint(what: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if what == "a file":
        path.write_text("hello")
    elif what == "an empty folder":
        path.mkdir()
    with pytest.raises(CheckpointError, match=r"no such folder|not a checkpoint"):
        Checkpoint(path)


def test_another_model_type(copy: Path) -> None:
    edit_config(copy, model_type="llava_llama")
    with pytest.raises(CheckpointError, match=r"model type 'llava_llama' is not MoVA's"):
        Checkpoint(copy)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_feat_size", "8"),
        ("image_feat_size", 7),
        ("expert_channels", [1, 2, 3]),
        ("mm_vision_tower", ["towers/clip"]),
        ("mm_projector_type", "linear"),
        ("num_routing_tokens", 5),
        ("topk_experts", 0),
        ("mm_use_im_start_end", True),
        ("hidden_size", None),
        ("num_routing_tokens", 0),
        ("mm_hidden_size", 0),
        ("max_position_embeddings", -5),
        ("expert_channels", [True] * 7),
        ("image_aspect_ratio", "anyres"),
    ],
)
def test_config_fields_are_checked(field: str, value: object, copy: Path) -> None:
    edit_config(copy, **{field: value})
    with pytest.raises(CheckpointError, match=rf"{field}|start, end") as error:
        Checkpoint(copy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_attention_heads": 0},
        {"num_attention_heads": "x"},
        {"vocab_size": -1},
        {"rope_scaling": {"rope_type": "unheard-of"}},
        {"hidden_act": "unheard-of"},
    ],
)
def test_a_configuration_that_makes_no_model(fields: dict[str, object], copy: Path) -> None:
    edit_config(copy, **fields)
    with pytest.raises(CheckpointError, match=r"llm: |don't fit") as error:
        Checkpoint(copy).check(["llm"])
    assert "\n" not in str(error.value)


def test_a_layer_that_does_not_exist(copy: Path) -> None:
    edit_config(copy, mm_vision_select_layer=-100)
    with pytest.raises(CheckpointError, match="mm_vision_select_layer -100 of a tower with 3 layers"):
        Checkpoint(copy).load("base")


def test_tied_embeddings_are_read_once(copy: Path) -> None:
    edit_config(copy, tie_word_embeddings=True)
    rewrite(shard_of(copy, "lm_head.weight"), lambda tensors: tensors.pop("lm_head.weight"))  # type: ignore[arg-type, return-value]
    edit_index(copy, lambda weight_map: weight_map.pop("lm_head.weight"))  # type: ignore[arg-type, return-value]
    opened = Checkpoint(copy)
    opened.check(["llm"])
    state = opened.load("llm").state_dict()
    assert torch.equal(state["lm_head.weight"], state["model.embed_tokens.weight"])


def test_config_is_not_json(copy: Path) -> None:
    (copy / "config.json").write_text('{"model_type": ')
    with pytest.raises(CheckpointError, match="not valid JSON"):
        Checkpoint(copy)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1000])
def test_truncated_shard(keep: int, copy: Path) -> None:
    shard = shard_of(copy, "lm_head.weight")
    data = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(data[:keep])
    with pytest.raises(CheckpointError, match=rf"{shard.name}: truncated or corrupted"):
        Checkpoint(copy)


def test_corrupted_header(copy: Path) -> None:
    shard = shard_of(copy, "lm_head.weight")
    data = bytearray(shard.read_bytes())
    data[100:120] = bytes(20)
    shard.unlink()
    shard.write_bytes(data)
    with pytest.raises(CheckpointError, match=shard.name):
        Checkpoint(copy).check()


def test_numbers_that_are_none(copy: Path) -> None:
    name = "model.vision_tower.vision_tower_7.neck.0.weight"
    rewrite(shard_of(copy, name), lambda tensors: tensors[name].view(-1)[3].fill_(float("nan")))
    with pytest.raises(CheckpointError, match=rf"'{name}' holds NaN"):
        Checkpoint(copy).load("sam")


def test_missing_shard(copy: Path) -> None:
    shard = shard_of(copy, "lm_head.weight")
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"shards missing: {shard.name}"):
        Checkpoint(copy)


def test_no_weights(copy: Path) -> None:
    for file in copy.glob("model*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        Checkpoint(copy)


def test_shard_outside_the_folder(copy: Path) -> None:
    edit_index(copy, lambda weight_map: weight_map.update({"lm_head.weight": "../elsewhere.safetensors"}))
    with pytest.raises(CheckpointError, match="same folder"):
        Checkpoint(copy)


# ---- strictness ----

ONE_OF_EACH = {
    "base": "model.vision_tower.vision_tower_0.vision_model.encoder.layers.2.layer_norm1.bias",
    "dinov2": "model.vision_tower.vision_tower_1.layernorm.weight",
    "vary": "model.vision_tower.vision_tower_2.patch_embed.proj.weight",
    "codetr": "model.vision_tower.vision_tower_3.blocks.0.attn.rope.freqs_cos",
    "pix2struct": "model.vision_tower.vision_tower_4.embeddings.row_embedder.weight",
    "deplot": "model.mm_projector.blocks.0.cross_attn.4.k_proj.weight",
    "biomedclip": "model.vision_tower.vision_tower_6.trunk.pos_embed",
    "sam": "model.vision_tower.vision_tower_7.blocks.0.attn.rel_pos_h",
    "text": "model.mm_projector.text_encoder.bert.embeddings.LayerNorm.bias",
    "adapter": "model.mm_projector.downsample.2.b1.se.fc1.bias",
    "llm": "model.layers.1.mlp.up_proj.weight",
}


def test_every_missing_unexpected_and_misshapen_tensor_is_named(copy: Path) -> None:
    missing = [ONE_OF_EACH[name] for name in ("base", "deplot", "adapter")]
    misshapen = [ONE_OF_EACH[name] for name in ("dinov2", "sam", "text")]
    unexpected = [
        "model.vision_tower.vision_tower_7.blocks.0.attn.extra",
        "model.vision_tower.vision_tower_8.weight",
        "something.else",
    ]
    for shard in sorted(copy.glob("*.safetensors")):

        def change(tensors: dict[str, torch.Tensor]) -> None:
            for name in missing:
                tensors.pop(name, None)
            for name in misshapen:
                if name in tensors:
                    tensors[name] = torch.zeros(*tensors[name].shape, 2)
            if "lm_head.weight" in tensors:
                tensors.update({name: torch.zeros(2) for name in unexpected})

        rewrite(shard, change)
    edit_index(copy, lambda weight_map: [weight_map.pop(name) for name in missing])  # type: ignore[arg-type, return-value]
    with pytest.raises(TensorMismatchError) as error:
        Checkpoint(copy).check()
    message = str(error.value)
    assert "3 missing: " in message
    assert "3 unexpected: " in message
    assert "3 misshapen: " in message
    for name in (*missing, *misshapen, *unexpected):
        assert name in message, name


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("fault", ["missing", "misshapen"])
def test_one_fault_names_one_tensor(component: str, fault: str, checkpoint: MakePath) -> None:
    name = ONE_OF_EACH[component]
    opened = Checkpoint(checkpoint(2))
    shapes = dict(opened.reader)
    shape = shapes.pop(name)
    if fault == "misshapen":
        shapes[name] = (shape[0] + 1, *shape[1:])
    opened.reader = shapes  # type: ignore[assignment]  # as if the headers said so
    with pytest.raises(TensorMismatchError) as error:
        opened.check()
    named = [other for other in (*opened.reader, name) if other in str(error.value)]
    assert set(named) == {name}


def test_other_components_are_left_alone(copy: Path) -> None:
    name = ONE_OF_EACH["sam"]
    rewrite(shard_of(copy, name), lambda tensors: tensors.pop(name))  # type: ignore[arg-type, return-value]
    edit_index(copy, lambda weight_map: weight_map.pop(name))  # type: ignore[arg-type, return-value]
    Checkpoint(copy).check(["base", "vary"])
    with pytest.raises(TensorMismatchError, match=name):
        Checkpoint(copy).check(["sam"])


# ---- pickles ----


class Payload:
    """Runs when unpickled by a reader that lets it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_executed(zipped: bool, copy: Path, tmp_path: Path) -> None:
    as_pickled(copy)
    marker = tmp_path / "executed"
    shard = sorted(copy.glob("*.bin"))[0]
    content = {"weight": torch.zeros(2), "payload": Payload(marker)}
    if zipped:
        torch.save(content, shard)
    else:
        shard.write_bytes(pickle.dumps(content))
    with pytest.raises(UnsafePickleError, match=rf"{shard.name}: the pickle holds code.*nothing was executed"):
        Checkpoint(copy)
    assert not marker.exists()


@pytest.mark.parametrize("keep", [0, 100, -100_000])
def test_truncated_pickle(keep: int, copy: Path) -> None:
    as_pickled(copy)
    shard = sorted(copy.glob("*.bin"))[0]
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=shard.name) as error:
        Checkpoint(copy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256)) * 40, b"PK\x03\x04" + bytes(500)])
def test_a_shard_of_noise(content: bytes, copy: Path) -> None:
    as_pickled(copy)
    sorted(copy.glob("*.bin"))[0].write_bytes(content)
    with pytest.raises(CheckpointError, match=r"truncated or corrupted \(.+\)"):
        Checkpoint(copy)


def test_pickle_of_something_else(copy: Path) -> None:
    as_pickled(copy)
    shard = sorted(copy.glob("*.bin"))[0]
    torch.save([1, 2, 3], shard)
    with pytest.raises(CheckpointError, match="expected a dictionary of tensors"):
        Checkpoint(copy)
