"""`mova export`: what it writes, and that it writes all of it or nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import mova_runtime
from command_line import Done, MovaCommand
from hard_times import files_at_most, heed_signals
from mova_export.bundle import BundleWriter
from mova_export.checkpoint.layout import COMPONENTS, EXPERTS
from mova_export.errors import ExportError
from mova_runtime.bundle import Bundle, sha256_of
from reference_data import TWICE, cases, relative_l2

MakePath = Callable[[int], Path]


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "kept")


def assert_user_error(done: Done, text: str) -> None:
    assert done.status == 2
    (line,) = done.error_lines
    assert line.startswith("mova")
    assert text in line


# ---- what it writes ----


def test_the_manifest_describes_the_bundle(bundle: MakePath) -> None:
    root = bundle(2)
    opened = Bundle.open(root)
    manifest = opened.manifest
    assert tuple(manifest.components) == COMPONENTS
    assert tuple(expert.name for expert in manifest.vision.experts) == EXPERTS
    for file in opened.files():
        path = root / file.path
        assert path.stat().st_size == file.bytes
        assert sha256_of(path) == file.sha256
    named = {file.path for file in opened.files()} | {"manifest.json"}
    assert {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} == named
    for component in manifest.components.values():
        assert component.parameters > 0
        for artifact in component.artifacts:
            assert {parity.output for parity in artifact.parity} == {output.name for output in component.outputs}
            assert all(0 <= parity.relative_l2 < 1e-4 for parity in artifact.parity)


def test_nothing_in_the_bundle_tells_where_it_was_made(bundle: MakePath) -> None:
    here = str(Path(__file__).parents[2]).encode()
    for path in bundle(2).rglob("*"):
        if path.suffix in (".json", ".onnx"):
            content = path.read_bytes()
            assert here not in content, path
            assert b"site-packages" not in content, path


@pytest.mark.parametrize("component", [name for name in COMPONENTS if name != "llm"])
def test_every_matrix_keeps_its_parameters_name(component: str, bundle: MakePath) -> None:
    """Who takes weights out of a graph, as `mova kernels` does, asks for them by name."""
    artifact = Bundle.open(bundle(2)).artifact(component, "fp32")
    graph = onnx.load(bundle(2) / artifact.files[0].path, load_external_data=False).graph
    matrices = [weight.name for weight in graph.initializer if len(weight.dims) == 2 and min(weight.dims) > 2]
    assert matrices
    assert [name for name in matrices if "." not in name] == []


def test_exporting_twice_gives_the_same_manifest(bundle: MakePath) -> None:
    first, again = (json.loads((bundle(which) / "manifest.json").read_text()) for which in (2, TWICE))

    def hashes(value: object) -> list[str]:
        if isinstance(value, dict):
            own = [value["sha256"]] if "sha256" in value else []
            return own + [found for child in value.values() for found in hashes(child)]
        return [found for child in value for found in hashes(child)] if isinstance(value, list) else []

    assert len(hashes(first)) > 60
    assert hashes(first) == hashes(again)
    assert first == again


def test_pickled_bfloat16_checkpoint_exports(tmp_path: Path, mova_command: MovaCommand) -> None:
    import torch
    from safetensors.torch import load_file

    from mova_export.demo.checkpoint import write_tiny_checkpoint

    folder = tmp_path / "checkpoint"
    write_tiny_checkpoint(folder, seed=2, dtype="bfloat16")
    tensors = {}
    for shard in folder.glob("*.safetensors"):
        tensors |= load_file(shard)
        shard.unlink()
    (folder / "model.safetensors.index.json").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")

    ran = mova_command("export", folder, "--out", tmp_path / "bundle", "--only", "deplot,base")
    assert ran.status == 0, ran.error
    progress = [line.split("]")[1].split()[0] for line in ran.output.splitlines() if "]" in line]
    assert progress == ["base", "deplot"]
    case = cases(2)[0]
    with mova_runtime.open(tmp_path / "bundle") as rt:
        found = rt.features(case.image, "base")
        assert relative_l2(found, case.array("base")) < 0.05  # the weights were rounded to 8 bits of mantissa
        assert rt.features(case.image, "deplot").shape == (144, 48)
        with pytest.raises(mova_runtime.BundleError, match="without component 'sam'"):
            rt.features(case.image, "sam")
        with pytest.raises(mova_runtime.BundleError, match="without component 'text'"):
            rt.answer(case.image, case.question)


# ---- where it writes ----


def test_an_output_that_exists_is_left_alone(checkpoint: MakePath, tmp_path: Path, mova_command: MovaCommand) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "precious").write_text("mine")
    assert_user_error(mova_command("export", checkpoint(2), "--out", out, "--only", "dinov2"), "exists")
    assert_user_error(
        mova_command("export", checkpoint(2), "--out", out, "--only", "dinov2", "--overwrite"), "is not a bundle"
    )
    assert (out / "precious").read_text() == "mine"
    assert leftovers(tmp_path) == ["bundle"]


def test_overwrite_replaces_a_bundle(checkpoint: MakePath, tmp_path: Path, mova_command: MovaCommand) -> None:
    out = tmp_path / "bundle"
    assert mova_command("export", checkpoint(2), "--out", out, "--only", "dinov2").status == 0
    assert mova_command("export", checkpoint(2), "--out", out, "--only", "deplot", "--overwrite").status == 0
    assert list(Bundle.open(out).manifest.components) == ["deplot"]
    assert leftovers(tmp_path) == ["bundle"]


def test_a_failed_overwrite_keeps_the_old_bundle(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "manifest.json").write_text('{"format": "mova-bundle"}')
    with contextlib.suppress(KeyError), BundleWriter(out, overwrite=True) as writer:
        writer.path("components/x").write_text("half")
        raise KeyError
    assert leftovers(tmp_path) == ["bundle"]
    assert (out / "manifest.json").read_text() == '{"format": "mova-bundle"}'


@pytest.mark.parametrize("kind", ["another manifest.json", "a bundle with something precious"])
def test_what_only_looks_like_a_bundle_is_not_overwritten(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    ours = kind != "another manifest.json"
    (out / "manifest.json").write_text(json.dumps({"format": "mova-bundle"} if ours else {"name": "my extension"}))
    (out / ("thesis.txt" if ours else "components")).write_text("mine")
    with pytest.raises(ExportError, match="is not a bundle"):
        BundleWriter(out, overwrite=True)


def test_a_link_to_a_bundle_is_written_through(bundle: MakePath, tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    link.symlink_to(target)
    with BundleWriter(link, overwrite=True) as writer:
        writer.finish(Bundle.open(bundle(2)).manifest)
    assert link.is_symlink()
    assert (target / "manifest.json").is_file()
    assert leftovers(tmp_path) == ["link", "target"]


def test_when_the_swap_fails_the_old_bundle_comes_back(
    bundle: MakePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "manifest.json").write_text(json.dumps({"format": "mova-bundle", "old": True}))
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if ".partial-" in self.name:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    manifest = Bundle.open(bundle(2)).manifest
    with pytest.raises(ExportError, match="input/output error"), BundleWriter(out, overwrite=True) as writer:
        writer.finish(manifest)
    assert json.loads((out / "manifest.json").read_text())["old"]
    assert leftovers(tmp_path) == ["bundle"]


def test_an_export_at_work_is_not_taken_for_abandoned(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "bundle") as first:
        file = first.path("components/x")
        file.write_text("half")
        with BundleWriter(tmp_path / "bundle"):
            assert file.read_text() == "half"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("limit", [1_000, 1_000_000])
def test_a_full_disk_leaves_nothing(
    limit: int, checkpoint: MakePath, tmp_path: Path, mova_command: MovaCommand
) -> None:
    source = checkpoint(2)
    with files_at_most(limit):
        ran = mova_command("export", source, "--out", tmp_path / "bundle", "--only", "dinov2")
    assert_user_error(ran, "nothing was written")
    assert leftovers(tmp_path) == []


def test_too_little_space_is_told_before_anything_is_exported(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "bundle") as writer, pytest.raises(ExportError, match=r"needs 1073741824\.0 GiB"):
        writer.require(2**60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_polite_kill_leaves_nothing(number: signal.Signals, checkpoint: MakePath, tmp_path: Path) -> None:
    process = start_export(checkpoint(2), tmp_path)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode in (128 + number, 130)
    assert "Traceback" not in told
    assert leftovers(tmp_path) == []


def test_a_hard_kill_leaves_no_bundle_and_the_next_export_cleans_up(
    checkpoint: MakePath, tmp_path: Path, mova_command: MovaCommand
) -> None:
    process = start_export(checkpoint(2), tmp_path)
    process.kill()
    process.communicate(timeout=60)
    assert not (tmp_path / "bundle").exists()
    assert len(leftovers(tmp_path)) == 1
    assert mova_command("export", checkpoint(2), "--out", tmp_path / "bundle", "--only", "deplot").status == 0
    assert leftovers(tmp_path) == ["bundle"]


def start_export(source: Path, folder: Path) -> subprocess.Popen[str]:
    """An export that is half-way: its first component is being written."""
    command = [sys.executable, "-m", "mova_export", "export", str(source), "--out", str(folder / "bundle")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=heed_signals,
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob(".bundle.partial-*/components")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)  # polls for the file system to change; nothing is assumed of how long that takes
    return process


# ---- mistakes ----


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--only", "base,eyes"), "unknown component eyes"),
        (("--only", ","), "names nothing"),
        (("--tower", "base"), "expected NAME=FOLDER"),
        (("--tower", "eyes=/tmp"), "unknown"),
        (("--tower", "base=/does/not/exist"), "no such folder"),
        (("--template", "alpaca", "--only", "deplot"), "unknown; one of"),
        (("--template", "vicuna_v1", "--only", "deplot"), "stop token"),
        (("--precision", "fp32,int3"), "unknown precision int3; one of fp32, fp16, bf16, int8, int4"),
        (("--precision", "fp16,fp16"), "precision fp16 is named twice"),
        (("--precision", ","), "names nothing"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: tuple[str, ...], text: str, checkpoint: MakePath, tmp_path: Path, mova_command: MovaCommand
) -> None:
    assert_user_error(mova_command("export", checkpoint(2), "--out", tmp_path / "bundle", *arguments), text)
    assert leftovers(tmp_path) == []


def test_not_a_checkpoint(tmp_path: Path, mova_command: MovaCommand) -> None:
    assert_user_error(mova_command("export", tmp_path, "--out", tmp_path / "bundle"), "not a checkpoint")


def test_probe_inputs_are_not_trivial(bundle: MakePath) -> None:
    opened = Bundle.open(bundle(2))
    for name, component in opened.manifest.components.items():
        for tensor, file in component.probe.outputs.items():
            output = np.load(opened.path(file))
            assert np.isfinite(output).all(), (name, tensor)
            assert output.std() > 0, (name, tensor)
