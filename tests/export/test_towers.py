"""Where towers' configurations come from: a given folder, the folder config.json names, or a preset."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mova_export.checkpoint import towers
from mova_export.checkpoint.config import CheckpointConfig
from mova_export.checkpoint.infer import biomedclip_config, codetr_config, sam_config
from mova_export.checkpoint.load import Checkpoint
from mova_export.checkpoint.presets import CONFIGS, preset_name
from mova_export.checkpoint.towers import TowerFolders
from mova_export.errors import CheckpointError
from mova_export.modules.clip import resize_positions as resize_clip_positions
from mova_export.modules.dinov2 import resize_positions as resize_dinov2_positions

MakePath = Callable[[int], Path]

HUB_NAMES = (
    "openai/clip-vit-large-patch14-336",
    "facebook/dinov2-giant",
    "vary",
    "codetr",
    "google/pix2struct-textcaps-large",
    "google/deplot",
    "biomedclip",
    "sam",
)


@pytest.fixture
def copy(checkpoint: MakePath, tmp_path: Path) -> Path:
    out = tmp_path / "checkpoint"
    shutil.copytree(checkpoint(2), out, copy_function=os.link)
    config = (out / "config.json").read_text()
    (out / "config.json").unlink()
    (out / "config.json").write_text(config)
    return out


def set_config(folder: Path, **fields: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def test_a_folder_given_on_the_command_line_comes_first(copy: Path, tmp_path: Path) -> None:
    shutil.move(copy / "towers" / "clip", tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"base: .*'towers/clip'.*--tower base=FOLDER"):
        Checkpoint(copy)
    Checkpoint(copy, {"base": tmp_path / "elsewhere"}).check(["base"])


def test_published_hub_names_have_presets_of_published_sizes(copy: Path) -> None:
    shutil.rmtree(copy / "towers")
    set_config(
        copy,
        mm_vision_tower=list(HUB_NAMES),
        mm_projector_text_encoder="google-bert/bert-large-uncased",
        image_feat_size=48,
    )
    config = CheckpointConfig.read(copy)
    folders = TowerFolders(copy, config, {})
    clip, dinov2 = towers.clip_config(folders, config), towers.dinov2_config(folders, 518)
    pix2struct, deplot, bert = (
        towers.pix2struct_config(folders, "pix2struct"),
        towers.pix2struct_config(folders, "deplot"),
        towers.bert_config(folders),
    )
    assert (clip.hidden_size, clip.num_hidden_layers, clip.image_size) == (1024, 24, 672)
    assert (dinov2.hidden_size, dinov2.num_hidden_layers, dinov2.use_swiglu_ffn) == (1536, 40, True)
    assert (pix2struct.hidden_size, pix2struct.num_hidden_layers, pix2struct.d_ff) == (1536, 18, 3968)
    assert (deplot.hidden_size, deplot.num_hidden_layers, deplot.d_ff) == (768, 12, 2048)
    assert (bert.hidden_size, bert.num_hidden_layers, bert.vocab_size) == (1024, 24, 30522)
    preprocessing = towers.preprocessing(folders, config)
    assert (preprocessing.clip.side, preprocessing.dinov2.side, preprocessing.high.side) == (672, 672, 1024)
    assert preprocessing.flattened.max_patches == 45**2


def test_preset_names() -> None:
    assert preset_name("/data/models/clip-vit-large-patch14-336/") == "clip-vit-large-patch14-336"
    assert preset_name("google-bert/bert-large-uncased") == "bert-large-uncased"
    assert preset_name("google/pix2struct-docvqa-large") == "pix2struct-large"
    assert preset_name("google/pix2struct-docvqa-base") == ""
    assert preset_name("towers/clip") == ""
    assert all(preset_name(name) == name for name in CONFIGS)


def test_a_processor_that_gives_no_square_map_is_refused(copy: Path) -> None:
    file = copy / "towers" / "pix2struct" / "preprocessor_config.json"
    processor = json.loads(file.read_text())
    file.unlink()
    file.write_text(json.dumps({**processor, "max_patches": 2048}))
    with pytest.raises(CheckpointError, match="max_patches 2048 is not a square number"):
        Checkpoint(copy)


def test_sizes_follow_from_shapes(checkpoint: MakePath) -> None:
    shapes = Checkpoint(checkpoint(2)).reader
    sam, vary = sam_config(shapes, "sam", 256), sam_config(shapes, "vary", 256)
    assert (sam.width, sam.heads, sam.hidden, sam.grid, sam.windows) == (96, 2, 384, 16, (14, 16))
    assert (vary.width, vary.heads, vary.stride_channels, vary.windows) == (64, 2, 512, (14, 16))
    codetr = codetr_config(shapes)
    assert (codetr.width, codetr.heads, codetr.grid, codetr.image_side, codetr.windows) == (64, 2, 80, 1280, (16, 80))
    biomedclip = biomedclip_config(shapes)
    assert (biomedclip.width, biomedclip.depth, biomedclip.image_side) == (192, 12, 224)


def test_position_tables_are_resized_like_the_published_code() -> None:
    table = torch.randn(1 + 16, 8)
    resized = resize_clip_positions(table, 8)
    assert resized.shape == (1 + 64, 8)
    assert torch.equal(resized[0], table[0])
    assert resize_clip_positions(resized, 8) is resized
    dinov2 = resize_dinov2_positions(table[None], 8)
    assert dinov2.shape == (1, 1 + 64, 8)
    assert not torch.allclose(dinov2[0], resized)  # its samples are shifted


def test_original_clip_positions_load(copy: Path) -> None:
    """A checkpoint saved before CLIP's table was resized to the grid."""
    from safetensors.torch import load_file, save_file

    name = "model.vision_tower.vision_tower_0.vision_model.embeddings.position_embedding.weight"
    shard = copy / json.loads((copy / "model.safetensors.index.json").read_text())["weight_map"][name]
    tensors = load_file(shard)
    tensors[name] = tensors[name][: 1 + 16].clone()
    shard.unlink()
    save_file(tensors, shard)
    opened = Checkpoint(copy)
    opened.check(["base"])
    assert opened.load("base").state_dict()["vision_model.embeddings.position_embedding.weight"].shape == (65, 1024)
