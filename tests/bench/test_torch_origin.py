"""Where torch's weights are from."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle_copy import copy_bundle, edited_manifest
from mova_export.bench.torch_origin import Origin, origin_of
from mova_export.checkpoint.random_model import RandomModel
from mova_export.errors import BenchError, ExportError
from mova_runtime.bundle import Bundle


def made_of(origin: str, bundle: Path, folder: Path) -> Bundle:
    copied = copy_bundle(bundle, folder / "bundle")
    with edited_manifest(copied) as manifest:
        manifest["provenance"]["model_type"] = origin
    return Bundle.open(copied)


@pytest.mark.parametrize(
    ("told", "preset", "seed"),
    [("mova-8b, random weights of seed 0", "mova-8b", 0), (" mova-34b ,random weights of seed  17 ", "mova-34b", 17)],
)
def test_a_presets_random_weights_are_told_by_the_bundle(bundle, tmp_path, told: str, preset: str, seed: int) -> None:
    assert origin_of(made_of(told, bundle(2), tmp_path), None) == Origin(preset=preset, seed=seed)


def test_what_an_export_writes_is_read(bundle, tmp_path) -> None:
    told = RandomModel("mova-7b", 3).origin
    assert origin_of(made_of(told, bundle(2), tmp_path), None) == Origin(preset="mova-7b", seed=3)


@pytest.mark.parametrize("told", ["mova_llama", "random weights of seed 0", "mova-8b, random weights of seed x", ""])
def test_others_are_to_be_passed(bundle, tmp_path, told: str) -> None:
    with pytest.raises(BenchError, match="pass --checkpoint DIR"):
        origin_of(made_of(told, bundle(2), tmp_path), None)


def test_the_bundles_checkpoint(bundle, checkpoint) -> None:
    assert origin_of(Bundle.open(bundle(2)), checkpoint(2)) == Origin(checkpoint=str(checkpoint(2)))


def test_another_checkpoint_is_refused(bundle, tmp_path) -> None:
    with pytest.raises(BenchError, match=r"not a checkpoint \(no config.json\)"):
        origin_of(Bundle.open(bundle(2)), tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BenchError, match="is not that of the checkpoint"):
        origin_of(Bundle.open(bundle(2)), tmp_path)


def test_without_torch(bundle, monkeypatch) -> None:
    monkeypatch.setattr("mova_export.bench.torch_origin.has_module", lambda name: name != "torch")
    with pytest.raises(BenchError, match="needs torch; install the project with its `export` extra"):
        origin_of(Bundle.open(bundle(2)), None)


def test_its_model(checkpoint) -> None:
    assert isinstance(Origin(preset="mova-7b", seed=3).source(), RandomModel)
    assert Origin(checkpoint=str(checkpoint(2))).source().config.blocks == 1
    with pytest.raises(ExportError, match="unknown preset 'mova-80b'"):
        Origin(preset="mova-80b").check()
