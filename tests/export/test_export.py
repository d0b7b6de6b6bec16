"""`mova export`: what it writes, and that it writes all of it or nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

import mova_runtime
from command_line import MovaCommand, assert_user_error
from hard_times import files_at_most, heed_signals
from mova_export.bundle import BundleWriter
from mova_export.checkpoint.layout import COMPONENTS, EXPERTS
from mova_export.errors import ExportError
from mova_runtime.bundle import Bundle, sha256_of
from reference_data import GOLDEN_SEEDS, cases, relative_l2

MakePath = Callable[[int], Path]


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "kept")


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


def hashes(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["sha256"]] if "sha256" in value else []
        return own + [found for child in value.values() for found in hashes(child)]
    return [found for child in value for found in hashes(child)] if isinstance(value, list) else []


def test_exporting_twice_gives_the_same_manifest(
    bundle: MakePath, checkpoint: MakePath, tmp_path: Path, mova_command: MovaCommand
) -> None:
    """By another process, and two components of eleven; of the others see the tests below and those of precisions."""
    again, chosen = tmp_path / "again", ("vary", "adapter")
    assert mova_command("export", checkpoint(2), "--out", again, "--only", ",".join(chosen)).status == 0
    first, second = (json.loads((root / "manifest.json").read_text()) for root in (bundle(2), again))
    assert len(hashes(first)) > 60
    assert second.pop("components") == {name: first["components"][name] for name in chosen}
    del first["components"]
    for manifest in (first, second):
        manifest["language"].pop("embeddings", None)  # the language model's, exported in the first alone
    assert second == first


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_same_graph_comes_out_of_every_process(component: str, bundle: MakePath) -> None:
    """Four checkpoints of one shape, each exported by a process of its own: only what they were filled with differs."""
    graphs = []
    for seed in GOLDEN_SEEDS:
        model = onnx.load(bundle(seed) / f"components/{component}/fp32/model.onnx", load_external_data=False)
        for weight in model.graph.initializer:
            weight.ClearField("raw_data")  # small ones are kept in the graph
        graphs.append(model.SerializeToString(deterministic=True))
    assert len(set(graphs)) == 1


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
        with pytest.raises(mova_runtime.BundleError, match=r"without component '(text|adapter)'"):
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


def test_overwrite_replaces_a_bundle(
    bundle: MakePath, checkpoint: MakePath, tmp_path: Path, mova_command: MovaCommand
) -> None:
    out = tmp_path / "bundle"
    assert mova_command("export", checkpoint(2), "--out", out, "--only", "llm").status == 0
    assert mova_command("export", checkpoint(2), "--out", out, "--only", "dinov2", "--overwrite").status == 0
    replaced = Bundle.open(out).manifest.components
    assert replaced == {"dinov2": Bundle.open(bundle(2)).manifest.components["dinov2"]}
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


@pytest.mark.parametrize("limit", [1_000, 200_000], ids=["no room for the graph", "no room for its weights"])
def test_a_full_disk_leaves_nothing(
    limit: int, checkpoint: MakePath, tmp_path: Path, mova_command: MovaCommand
) -> None:
    source = checkpoint(2)
    with files_at_most(limit):
        ran = mova_command("export", source, "--out", tmp_path / "bundle", "--only", "llm")
    assert_user_error(ran, "nothing was written")
    assert leftovers(tmp_path) == []


def test_too_little_space_is_told_before_anything_is_exported(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "bundle") as writer, pytest.raises(ExportError, match=r"needs 1073741824\.0 GiB"):
        writer.require(2**60)


EXPORTER = """
import os, sys
import mova_export.export
from mova_export.cli import main

for line in sys.stdin:
    source, folder = line.split()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(folder + "/told", os.O_WRONLY | os.O_CREAT), 2)
        sys.exit(main(["export", source, "--out", folder + "/bundle"]))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Exports what it reads, each in a process of its own that need not import torch again."""


@dataclasses.dataclass(frozen=True)
class Exporter:
    process: subprocess.Popen[str]

    def _line(self) -> int:
        assert self.process.stdout
        return int(self.process.stdout.readline())

    def start(self, source: Path, folder: Path) -> int:
        """The process of an export that is half-way: its first component is being written."""
        assert self.process.stdin
        self.process.stdin.write(f"{source} {folder}\n")
        self.process.stdin.flush()
        child = self._line()
        deadline = time.monotonic() + 120
        while not list(folder.glob(".bundle.partial-*/components")):
            assert Path(f"/proc/{child}").exists()
            assert time.monotonic() < deadline
            time.sleep(0.05)  # polls for the file system to change; nothing is assumed of how long that takes
        return child

    def ended(self, folder: Path) -> tuple[int, str]:
        """Its exit status, and what it told."""
        status, told = self._line(), folder / "told"
        text = told.read_text()
        told.unlink()
        return status, text


@pytest.fixture(scope="module")
def exporter() -> Iterator[Exporter]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", EXPORTER], text=True, env=environment, preexec_fn=heed_signals, **pipes
    ) as process:
        yield Exporter(process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_polite_kill_leaves_nothing(
    number: signal.Signals, exporter: Exporter, checkpoint: MakePath, tmp_path: Path
) -> None:
    os.kill(exporter.start(checkpoint(2), tmp_path), number)
    status, told = exporter.ended(tmp_path)
    assert status in (128 + number, 130), told
    assert "Traceback" not in told
    assert leftovers(tmp_path) == []


def test_a_hard_kill_leaves_no_bundle_and_the_next_export_cleans_up(
    exporter: Exporter, checkpoint: MakePath, tmp_path: Path, mova_command: MovaCommand
) -> None:
    os.kill(exporter.start(checkpoint(2), tmp_path), signal.SIGKILL)
    assert exporter.ended(tmp_path) == (-signal.SIGKILL, "")
    assert not (tmp_path / "bundle").exists()
    assert len(leftovers(tmp_path)) == 1
    assert mova_command("export", checkpoint(2), "--out", tmp_path / "bundle", "--only", "llm").status == 0
    assert leftovers(tmp_path) == ["bundle"]


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
