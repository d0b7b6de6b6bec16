"""The published pipeline in torch is the published pipeline; and the script that compares ours with it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pipeline
import pytest
import torch
from contenders import question_ids
from published import Published
from stand_by import StandBy

from mova_export.checkpoint.load import Checkpoint
from mova_runtime import MovaError, ParityError
from mova_runtime.bundle import Bundle
from reference_data import EXPERTS, cases, relative_l2

MakePath = Callable[[int], Path]
SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/pipeline.py"
TOLERANCE = 1e-4
GOLDEN_INPUTS = {
    **dict.fromkeys(("base", "biomedclip"), "pixel_clip"),
    **dict.fromkeys(("vary", "codetr", "sam"), "pixel_high"),
    **dict.fromkeys(("pix2struct", "deplot"), "flattened"),
    "dinov2": "pixel_dinov2",
}


@pytest.mark.parametrize("seed", [2, 6])
def test_torch_computes_what_the_published_code_returned(seed: int, bundle: MakePath, checkpoint: MakePath) -> None:
    published, opened = Published(Checkpoint(checkpoint(seed)), torch.float32), Bundle.open(bundle(seed))
    for case in cases(seed):
        assert case.experts
        inputs = {name: torch.from_numpy(case.array(golden)[None]) for name, golden in GOLDEN_INPUTS.items()}
        ids = torch.tensor([question_ids(opened, case.question)])
        passes = published(inputs, ids, torch.ones_like(ids), case.experts)
        assert relative_l2(passes.visual[0].numpy(), case.array("visual")) < TOLERANCE
        assert relative_l2(passes.routing[0].numpy(), case.array("visual_routing")) < TOLERANCE


def test_torch_runs_the_chosen_towers_once_and_no_other(checkpoint: MakePath) -> None:
    """Base once, text with the adapter in both passes; of the experts, tower and keys of those that were chosen."""
    published = Published(Checkpoint(checkpoint(2)), torch.float32)
    ran: list[str] = []

    def watch(name: str, module: torch.nn.Module) -> None:
        module.register_forward_hook(lambda *_: ran.append(name))

    watch("base", published.base)
    watch("text", published.text)
    for name, expert in published.experts.items():
        watch(name, expert.tower)
        watch(f"{name} keys", expert.blocks[0])
    case = cases(2)[0]
    inputs = {name: torch.from_numpy(case.array(golden)[None]) for name, golden in GOLDEN_INPUTS.items()}
    ids = torch.tensor([[2, 5, 3]])
    published(inputs, ids, torch.ones_like(ids), ("deplot", "biomedclip"))
    assert ran == ["base", "text", "deplot", "biomedclip", "text", "deplot keys", "biomedclip keys"]


def test_the_script_measures_both_parts(bundle: MakePath, checkpoint: MakePath, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, SCRIPT, bundle(0), "--checkpoint", checkpoint(0), "--torch", "fp32", "--out", out]
    options = ["--backend", "ort", "--precision", "fp32", "--repeats", "2", "--threads", "1", "--experts", "sam,deplot"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    (compared,) = found["pipeline"].values()
    assert list(found["pipeline"]) == ["ort fp32 deplot,sam"]
    assert set(compared["seconds"]) == {"ours routed", "ours named", "torch fp32"}
    assert all(one["count"] == 2 and one["median"] > 0 for one in compared["seconds"].values())
    for which in ("ours routed", "ours named"):
        assert compared["ratios"][which]["torch fp32"]["count"] == 2
    for which in ("routing", "visual"):
        assert compared["errors"]["torch fp32"][which]["relative_l2"] < TOLERANCE
    assert set(compared["served"]) == {"base", "text", "adapter", "deplot", "sam"}
    assert all(one["peak"] >= one["now"] > 0 for one in compared["memory"].values())
    assert compared["first_request"]["ours"] > 0
    (memory,) = found["memory"].values()
    assert set(memory["one_expert"]) == set(EXPERTS)
    assert set(memory["engines"]) == {"base", "text", "adapter", *EXPERTS}
    assert 0 < memory["share"] < 1
    assert memory["everything"] > max(memory["one_expert"].values())
    for one in (compared, memory):
        assert {"machine", "versions", "commit", "threads", "load_at_start", "bundle"} <= one.keys()
    assert "one expert takes" in done.stdout


def test_one_after_another_there_are_ratios_of_medians(
    bundle: MakePath, checkpoint: MakePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, which sees how many there are at a time."""
    there: list[str] = []
    most = 0

    class Here:
        def __init__(self, name: str, make: Callable[..., Any], *arguments: Any) -> None:
            nonlocal most
            self._name, self._made = name, make(*arguments)
            there.append(name)
            most = max(most, len(there))

        def ask(self, method: str, *arguments: Any) -> Any:
            return getattr(self._made, method)(*arguments)

        def __enter__(self) -> Here:
            return self

        def __exit__(self, *_: object) -> None:
            there.remove(self._name)

    monkeypatch.setattr(pipeline, "StandBy", Here)
    out = tmp_path / "out.json"
    command = ["pipeline.py", bundle(0), "--checkpoint", checkpoint(0), "--out", out, "--part", "pipeline"]
    options = ["--backend", "ort", "--repeats", 1, "--threads", 1, "--experts", "deplot"]
    for order, at_once in (([], 2), (["--one-after-another"], 1)):
        monkeypatch.setattr(sys, "argv", [str(word) for word in (*command, *options, *order)])
        most = 0
        assert pipeline.main() == 0
        assert most == at_once
    ((_, found),) = json.loads(out.read_text())["pipeline"].items()  # in place of the first
    assert not found["alternating"]
    seconds, ratio = found["seconds"], found["ratios"]["ours named"]["torch bf16"]
    assert ratio == {"median": pytest.approx(seconds["ours named"]["median"] / seconds["torch bf16"]["median"])}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--experts", "sam,eagle"], "unknown expert 'eagle'"),
        (["--part", "pipeline"], "pass --checkpoint DIR"),
        (["--part", "memory", "--backend", "abacus"], "abacus"),
    ],
)
def test_mistakes_are_told_in_a_line(
    options: list[str],
    message: str,
    bundle: MakePath,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out.json"
    backend = [] if "--backend" in options else ["--backend", "ort", "--precision", "fp32"]
    monkeypatch.setattr(sys, "argv", ["pipeline.py", str(bundle(0)), *backend, *options, "--out", str(out)])
    assert pipeline.main() == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("pipeline: ")]
    assert message in line
    assert not out.exists()


def test_who_disagrees_is_not_timed() -> None:
    right = {"visual": np.ones((4, 8), np.float32)}
    assert pipeline.agree("torch bf16", right, right, "bf16")["visual"]["cosine"] == pytest.approx(1)
    slightly = {"visual": right["visual"] + np.linspace(-0.05, 0.05, 32, dtype=np.float32).reshape(4, 8)}
    pipeline.agree("torch fp32", slightly, right, "bf16")
    with pytest.raises(ParityError, match=r"below 0\.9999"):
        pipeline.agree("torch fp32", slightly, right, "fp32")
    with pytest.raises(ParityError, match="cosine nan"):
        pipeline.agree("torch bf16", {"visual": right["visual"] * np.nan}, right, "bf16")


def test_what_goes_wrong_on_stand_by_is_told() -> None:
    with StandBy("ours", importlib.import_module, "mova_runtime") as runtime:
        with pytest.raises(MovaError, match=r"ours: .*nowhere"):
            runtime.ask("open", "nowhere")
        with pytest.raises(RuntimeError, match=r"(?s)ours failed in sing.*AttributeError"):
            runtime.ask("sing")
    with StandBy("torch", importlib.import_module, "os") as system:
        assert system.ask("getcwd") == str(Path.cwd())
        with pytest.raises(MovaError, match="torch ended with status 3"):
            system.ask("_exit", 3)
