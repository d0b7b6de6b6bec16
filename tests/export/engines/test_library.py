"""What is done with TensorRT's library: its timings, what it writes, how far it tells that it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import MovaCommand, assert_user_error
from engine_bundles import RTX, needs_tensorrt_rtx
from mova_export.cli import build as command
from mova_export.engines.output import Output, serialise
from mova_export.engines.progress import Progress
from mova_runtime.bundle import Bundle
from mova_runtime.engines.nvidia import Gpu
from mova_runtime.engines.trt import library

MakePath = Callable[[int], Path]
pytestmark = needs_tensorrt_rtx


class Older:
    """A library that lacks what TensorRT 11 dropped."""

    def __init__(self, whole: Any) -> None:
        self._whole = whole
        self.NetworkDefinitionCreationFlag = self.BuilderFlag = object()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)


def test_tensorrt_builds_with_a_timing_cache(
    fresh: Path, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    stand_in = Older(library.load("tensorrt-rtx"))
    monkeypatch.setattr(library, "load", lambda flavour: stand_in)
    monkeypatch.setattr(library, "version", lambda flavour: "11.4.1.2")
    monkeypatch.setattr(command, "gpu", lambda: Gpu("NVIDIA A10", "sm_86", "13.0"))
    ran = mova_command("build", fresh, "--backend", "tensorrt", "--only", "deplot")
    assert ran.status == 0, ran.error
    (record,) = Bundle.open(fresh).engines()
    assert (record.key.flavour, record.key.capability) == ("tensorrt", "sm_86")
    (kept,) = (cache_folder / "timing").iterdir()
    assert kept.name == "tensorrt-11.4.1.2-sm_86.cache"
    assert kept.stat().st_size > 0
    assert mova_command("build", fresh, "--backend", "tensorrt", "--only", "deplot", "--rebuild").status == 0
    assert_user_error(mova_command("build", fresh, "--backend", "tensorrt", "--target", "sm_89"), "not for sm_89")


def test_an_engine_is_written_whole_where_the_library_can_not_stream_it() -> None:
    class Builder:
        def build_serialized_network(self, network: object, config: object) -> bytes | None:
            return b"engine" if network else None

    written: list[bytes] = []
    output = Output(lambda data: written.append(bytes(data)))
    assert serialise(None, Builder(), "network", None, output)
    assert written == [b"engine"]
    assert not serialise(None, Builder(), None, None, output)


def test_a_write_that_fails_is_kept_from_tensorrt() -> None:
    def full(data: memoryview) -> None:
        raise OSError(28, "No space left on device")

    output = Output(full)
    assert output.take(b"engine") == output.take(b"more") == 0
    assert output.failure
    assert output.failure.errno == 28


def test_nested_phases_are_one_fraction() -> None:
    told: list[float] = []
    progress = Progress(told.append, stop=lambda: False)
    progress.start("build", 2)
    assert progress.step("build")
    progress.start("time kernels", 4)
    assert progress.step("time kernels")
    progress.finish("time kernels")
    assert progress.step("build")
    progress.finish("build")
    assert told == [0.5, 0.625, 1.0]
    assert progress.fraction == 0


def test_progress_stops_a_build_on_a_signal_or_when_nobody_reads_it() -> None:
    assert not Progress(lambda fraction: None, stop=lambda: True).step("build")

    def gone(fraction: float) -> None:
        raise BrokenPipeError

    progress = Progress(gone, stop=lambda: False)
    assert not progress.step("build")
    assert isinstance(progress.failure, BrokenPipeError)


def test_a_terminal_is_told_how_far_an_engine_is(
    fresh: Path, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    output = mova_command("build", fresh, *RTX, "--target", "sm_86", "--only", "deplot").output
    percents = [int(part.split()[-2]) for part in output.split("\r") if part.rstrip().endswith("%")]
    assert percents == sorted(percents)
    assert len(percents) > 5
    assert 80 < percents[-1] <= 100
