"""The script for a GPU, where there is none: what it checks, by the interpreter; and that what is wrong is told."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from on_gpu import clock, contest
from on_gpu.agreement import BARS, agree, poisoned
from on_gpu.clock import Timed, measure
from on_gpu.contest import OURS, Contest, hold
from on_gpu.report import Goal, Section, attempt, table
from on_gpu.setting import NotThereError, Setting

from mova_export.bench.timing import Spread
from mova_runtime.engines.nvidia import gpu

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/gpu.py"


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    generator = torch.Generator().manual_seed(0)
    return Setting(gpu=False, timed=True, pairs=(1,), repeats=2, work=tmp_path, generator=generator)


@pytest.mark.skipif(gpu() is not None, reason="has a GPU: the script itself is to be run")
def test_without_a_gpu_it_checks_what_it_can(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, SCRIPT, "--check-only", "--only", "cubins,attention,fusion,block,ceilings"]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [*command, "--pairs", "3", "--seed", "5", "--out", out], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    for name in ("cubins", "attention", "fusion", "block"):
        assert found[name]["checks"], name
        assert all(check["passed"] for check in found[name]["checks"])
        assert not found[name]["times"]
    assert found["ceilings"]["missing"] == {"ceilings": "nothing is timed"}
    assert {"machine", "versions", "commit", "seed"} <= found.keys()
    assert "not there: block, 3 pairs: torch.compile" in done.stdout


@pytest.mark.skipif(gpu() is not None, reason="has a GPU")
def test_without_a_gpu_nothing_can_be_timed() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 2
    assert "no NVIDIA GPU" in done.stderr


def test_a_section_that_breaks_is_told_and_stays_alone() -> None:
    def breaks(section: Section) -> None:
        section.check(agree("before", torch.ones(2), torch.ones(2), torch.float32))
        raise RuntimeError("out of luck")

    def lacks(_: Section) -> None:
        raise NotThereError("no cuda.core")

    sections = {"breaks": attempt("breaks", breaks), "lacks": attempt("lacks", lacks)}
    assert not sections["breaks"].sound
    assert sections["lacks"].sound
    lines = "\n".join(table(sections))
    assert "BROKE OFF RuntimeError: out of luck" in lines
    assert "not there: lacks: no cuda.core" in lines
    assert json.loads(json.dumps({name: one.to_json() for name, one in sections.items()}))


def test_what_is_wrong_is_not_timed(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("timed")

    monkeypatch.setattr(contest, "measure", never)
    section = Section()
    wanted = torch.arange(1.0, 5.0)
    ways = {OURS: lambda _: wanted + 1, "theirs": lambda _: wanted}
    assert hold(Contest("sum", ways, wanted, torch.float32, 1), setting, section) == {}
    assert not section.sound
    assert "WRONG sum: ours" in "\n".join(table({"sums": section}))


def test_a_wrong_library_is_left_out_and_what_a_kernel_left_out_shows(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = {OURS: Timed(Spread.of([2e-6]), graph=True)}
    monkeypatch.setattr(contest, "measure", lambda ways, *_: {name: timed[name] for name in ways})
    section = Section()
    wanted = torch.ones(4)

    def fails(_: int) -> torch.Tensor:
        raise RuntimeError("no such backend")

    ways = {OURS: lambda _: (wanted, None), "theirs": lambda _: wanted * 2, "others": fails}
    assert hold(Contest("ones", ways, wanted, torch.float32, 1, operations=4e6), setting, section) == timed
    assert section.times["ones"][OURS]["operations_per_second"] == pytest.approx(2e12)
    assert section.missing == {"ones: others": "no such backend"}
    unwritten = {OURS: lambda _: torch.empty(4)}
    assert hold(Contest("nothing", unwritten, wanted, torch.float32, 1), setting, section) == {}


def test_contenders_take_turns_and_what_cannot_be_captured_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a stand-in for torch.cuda whose clock counts the runs: 2 milliseconds each of ours, 6 of theirs."""
    milliseconds, capturing = [0.0], [False]
    order: list[str] = []

    class Event:
        at = 0.0

        def record(self) -> None:
            self.at = milliseconds[0]

        def synchronize(self) -> None:
            """Everything is done when it is called."""

        def elapsed_time(self, other: Event) -> float:
            return other.at - self.at

    @contextlib.contextmanager
    def capture(_: object) -> Iterator[None]:
        capturing[0] = True
        try:
            yield
        finally:
            capturing[0] = False

    def ours(_: int) -> None:
        if not capturing[0]:
            order.append("ours")
            milliseconds[0] += 2.0

    def theirs(_: int) -> None:
        if capturing[0]:
            raise RuntimeError("operation not permitted when stream is capturing")
        order.append("theirs")
        milliseconds[0] += 6.0

    stream = SimpleNamespace(wait_stream=lambda _: None)
    cuda = SimpleNamespace(
        Stream=lambda: stream,
        current_stream=lambda: stream,
        stream=lambda _: contextlib.nullcontext(),
        synchronize=lambda: None,
        CUDAGraph=lambda: SimpleNamespace(replay=lambda: [ours(index) for index in range(2)]),
        graph=capture,
        Event=lambda enable_timing: Event(),
    )
    monkeypatch.setattr(clock, "torch", SimpleNamespace(cuda=cuda))
    timed = measure({"ours": ours, "theirs": theirs}, sets=2, repeats=3)
    assert timed["ours"] == Timed(Spread.of([2e-3] * 3), graph=True)
    assert timed["theirs"] == Timed(Spread.of([6e-3] * 3), graph=False)
    assert order[-12:] == (["ours"] * 2 + ["theirs"] * 2) * 3


def test_agreement_is_a_relative_error_that_nan_does_not_pass() -> None:
    wanted = torch.tensor([3.0, 4.0])
    check = agree("x", torch.tensor([3.0, 4.5]), wanted, torch.bfloat16)
    assert check.error == pytest.approx(0.1)
    assert not check.passed
    assert agree("x", wanted * (1 + BARS[torch.float32] / 2), wanted, torch.float32).passed
    assert not agree("x", wanted * torch.nan, wanted, torch.float32).passed
    assert not agree("x", wanted[:1], wanted, torch.float32).passed
    with poisoned():
        assert torch.empty(3, dtype=torch.bfloat16).isnan().all()


def test_goals_point_one_way() -> None:
    assert Goal("rate", 0.8, 0.76, at_least=True).met
    assert not Goal("rate", 0.7, 0.76, at_least=True).met
    assert Goal("time", 0.5, 0.5, at_least=False).met
    assert not Goal("time", 0.6, 0.5, at_least=False).met
