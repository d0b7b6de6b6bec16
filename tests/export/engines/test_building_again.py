"""What is there and whole is not built again; what is damaged, or of another graph or batch, is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle_copy import edited_manifest, file_entry, rewrite
from command_line import MovaCommand, assert_user_error
from engine_bundles import RTX, engine_files, hidden, needs_tensorrt_rtx
from mova_export.engines.build import flags
from mova_runtime.bundle import Bundle
from mova_runtime.engines.trt import library

MakePath = Callable[[int], Path]
pytestmark = needs_tensorrt_rtx


def test_inspect_shows_engines_and_which_are_of_no_use(fresh: Path, mova_command: MovaCommand) -> None:
    assert "engines:" not in mova_command("inspect", fresh).output
    mova_command("build", fresh, *RTX, "--only", "deplot", "--target", "sm_86,sm_120")
    lines = mova_command("inspect", fresh).output.splitlines()
    (line,) = lines[lines.index("engines:") + 1 :]
    assert line.split() == ["deplot", "fp32", "tensorrt-rtx", library.version("tensorrt-rtx"), "sm_120,", "sm_86"]
    path = "components/deplot/fp32/model.onnx"
    rewrite(fresh / path, (fresh / path).read_bytes() + b"\x3a\x02\x12\x00")
    with edited_manifest(fresh) as manifest:
        manifest["components"]["deplot"]["artifacts"][0]["files"][0] = file_entry(fresh, path)
    assert mova_command("inspect", fresh).output.splitlines()[-1].endswith("of another export: not used")


def test_what_is_there_is_not_built_again(fresh: Path, mova_command: MovaCommand) -> None:
    only = ("build", fresh, *RTX, "--only", "deplot")
    assert mova_command(*only, "--target", "sm_86").status == 0
    before = engine_files(fresh)
    again = mova_command(*only, "--target", "sm_86,sm_89,sm_86")
    assert [line.endswith("already built") for line in again.output.splitlines()[1:-1]] == [True, False]
    assert "2 engines" in again.output
    after = engine_files(fresh)
    assert before.items() < after.items()

    assert mova_command(*only, "--target", "sm_86", "--rebuild").status == 0
    (name,) = before
    rebuilt = engine_files(fresh)
    assert rebuilt[name] > after.pop(name)
    assert after.items() < rebuilt.items()
    assert hidden(fresh) == []


@pytest.mark.parametrize("damage", ["engine bytes", "no engine", "record", "another's record"])
def test_what_is_damaged_is_built_again(damage: str, deplot: Path, mova_command: MovaCommand) -> None:
    (record,) = Bundle.open(deplot).engines()
    engine = deplot / record.file.path
    whole, text = engine.read_bytes(), engine.with_name("engine.json").read_text()
    if damage == "engine bytes":
        rewrite(engine, whole[:-1] + b"x")
    elif damage == "no engine":
        engine.unlink()
    else:
        changed = text.replace("sm_86", "sm_89") if damage[0] == "a" else text[:100]
        rewrite(engine.with_name("engine.json"), changed.encode())
    ran = mova_command("build", deplot, *RTX, "--only", "deplot", "--target", "sm_86")
    assert "1 built now" in ran.output
    assert Bundle.open(deplot).engines()[0].key == record.key
    assert engine.stat().st_size == len(whole)


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:-1] + b"x", lambda data: b""])
def test_verify_finds_a_damaged_engine_also_without_a_gpu(damage: Any, deplot: Path, mova_command: MovaCommand) -> None:
    (record,) = Bundle.open(deplot).engines()
    path = deplot / record.file.path
    rewrite(path, damage(path.read_bytes()))
    done = mova_command("verify", deplot)
    assert_user_error(done, "the engine of 'deplot' for sm_86 is damaged")
    assert "mova build" in done.error


def test_a_re_exported_graph_has_other_engines(deplot: Path, mova_command: MovaCommand) -> None:
    arguments = ("build", deplot, *RTX, "--only", "deplot", "--target", "sm_86")
    path = "components/deplot/fp32/model.onnx"
    rewrite(deplot / path, (deplot / path).read_bytes() + b"\x3a\x02\x12\x00")  # an empty name more changes no meaning
    with edited_manifest(deplot) as manifest:
        manifest["components"]["deplot"]["artifacts"][0]["files"][0] = file_entry(deplot, path)
    ran = mova_command(*arguments)
    assert ran.status == 0, ran.error
    assert "1 built now" in ran.output
    assert len({record.key.graph for record in Bundle.open(deplot).engines()}) == 2


def test_a_larger_batch_is_another_engine(deplot: Path, mova_command: MovaCommand) -> None:
    arguments = ("build", deplot, *RTX, "--only", "deplot", "--target", "sm_86")
    assert "1 built now" in mova_command(*arguments, "--max-batch", 3, "--optimization-level", 0).output
    greatest = {record.key.profile["patches"].maximum[0]: record.key.flags for record in Bundle.open(deplot).engines()}
    assert greatest == {1: flags(), 3: ("no-tf32", "optimization-level=0", "strongly-typed")}
