"""Engines of every component for three targets, on a machine that has none of those GPUs."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle_copy import copy_bundle
from engine_bundles import NAMES, RTX, hidden, needs_tensorrt_rtx
from mova_export.engines.build import flags
from mova_runtime.bundle import Bundle, sha256_of
from mova_runtime.bundle.engine import EngineKey, EngineRecord, Range
from mova_runtime.bundle.schema import from_json, to_json
from mova_runtime.engines.trt import library

MakePath = Callable[[int], Path]
pytestmark = needs_tensorrt_rtx
HALVES = ("adapter,biomedclip,llm,deplot,pix2struct", "base,text,vary,codetr,sam,dinov2")


@dataclasses.dataclass(frozen=True)
class Built:
    root: Path
    outputs: tuple[str, ...]


@pytest.fixture(scope="module")
def built(bundle: MakePath, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Engines of every component for three targets, built by two commands at once."""
    root = copy_bundle(bundle(2), tmp_path_factory.mktemp("built") / "bundle")
    line = [sys.executable, "-m", "mova_export", "build", str(root), *RTX, "--target", ",".join(NAMES), "--only"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*line, half], **pipes) for half in HALVES]
    outputs = []
    for process in processes:
        output, error = process.communicate(timeout=300)
        assert (process.returncode, error) == (0, "")
        outputs.append(output)
    return Built(root, tuple(outputs))


def test_every_component_for_every_target_without_a_gpu(built: Built) -> None:
    opened = Bundle.open(built.root)
    records = {(record.key.component, record.key.capability): record for record in opened.engines()}
    assert set(records) == {(component, name) for component in opened.manifest.components for name in NAMES}
    for record in records.values():
        key, path = record.key, built.root / record.file.path
        artifact = opened.artifact(key.component, "fp32")
        assert (key.precision, key.flavour, key.graph) == ("fp32", "tensorrt-rtx", artifact.sha256)
        assert key.version == library.version("tensorrt-rtx")
        assert key.platform == f"linux-{os.uname().machine}"
        assert record.file.path == f"engines/{key.name}/engine.plan"
        assert path.stat().st_size == record.file.bytes > artifact.bytes
        assert sha256_of(path) == record.file.sha256
        assert record.seconds > 0
    assert len({record.file.sha256 for record in records.values()}) == len(records)
    assert hidden(built.root) == []


def test_an_engine_takes_about_the_room_that_is_asked_for(built: Built) -> None:
    from mova_export.engines.order import _room

    opened = Bundle.open(built.root)
    for record in opened.engines():
        assert record.file.bytes <= _room(opened, record.key), record.key.component


def test_a_line_tells_of_each_engine(built: Built) -> None:
    for half, output in zip(HALVES, built.outputs, strict=True):
        total = 3 * len(half.split(","))
        first, *lines, last = output.splitlines()
        assert "sm_86 (RTX 30, A10), sm_89 (RTX 40, L4), sm_120 (RTX 50)" in first
        assert [line[:7] for line in lines] == [f"[{index:2}/{total}]" for index in range(1, total + 1)]
        assert [line.split("]")[1].split()[0] for line in lines[::3]] == half.split(",")
        assert all(line.endswith(" s") and "iB" in line for line in lines)
        assert f"{total} engines" in last
        assert f"{total} built now" in last


def test_a_record_is_read_back_as_it_was_written(built: Built) -> None:
    for record in Bundle.open(built.root).engines():
        assert from_json(EngineRecord, to_json(record), "record") == record
        assert from_json(EngineKey, json.loads(json.dumps(to_json(record.key))), "key").name == record.key.name


def test_building_needs_no_torch() -> None:
    code = (
        "import sys, mova_export.cli.build, mova_export.engines.order\n"
        "from mova_runtime.engines.trt import library\n"
        "library.version('tensorrt-rtx')\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'tensorrt_rtx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_key_changes_with_everything_an_engine_depends_on(built: Built) -> None:
    key = next(record.key for record in Bundle.open(built.root).engines() if record.key.component == "base")
    wider = {name: Range(r.minimum, r.optimum, (4, *r.maximum[1:])) for name, r in key.profile.items()}
    changes: dict[str, Any] = {
        "component": "sam", "precision": "bf16", "graph": "0" * 64, "flavour": "tensorrt", "version": "1.7.1.117",
        "capability": "sm_80", "platform": "linux-aarch64", "profile": wider, "flags": flags(5),
    }  # fmt: skip
    assert set(changes) == {field.name for field in dataclasses.fields(EngineKey)}
    names = {dataclasses.replace(key, **{field: value}).name for field, value in changes.items()}
    assert len(names | {key.name}) == len(changes) + 1


def test_tensorrt_rtx_keeps_no_timings(built: Built, cache_folder: Path) -> None:
    assert not list((cache_folder / "timing").glob("tensorrt-rtx*"))
