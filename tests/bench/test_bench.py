"""`mova bench` from end to end on a part of the tiny bundle: every field it writes, and what holds between them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bundle_copy import copy_bundle, edited_manifest
from mova_export.bench.torch_modules import TorchSubject
from mova_export.bench.torch_origin import Origin
from mova_export.checkpoint.load import Checkpoint
from mova_runtime.bundle import Bundle
from mova_runtime.parity.bars import BARS
from mova_runtime.parity.compare import compare

PART = ("base", "dinov2", "text", "adapter", "llm")

TOP = {
    *("format", "version", "date", "complete", "machine", "versions", "commit", "command", "load", "bundle", "options"),
    *("matrix_rate", "components", "routes", "everything"),
}
CONTENDER = {
    *("label", "ours", "backend", "precision", "engine_bytes", "load_cold", "load_warm", "first_run", "run"),
    *("per_second", "memory", "device_memory", "rate", "share", "parity", "energy", "group", "error"),
}
ROUTE = {
    *("experts", "kind", "backend", "first_visual_token", "first_answer_token", "tokens_per_second"),
    *("second_question", "memory", "hidden", "stages", "error"),
}


@pytest.fixture(scope="module")
def part(bundle, tmp_path_factory) -> Path:
    """A bundle of one expert, whose base says how much it computes."""
    copied = copy_bundle(bundle(2), tmp_path_factory.mktemp("bench") / "part")
    with edited_manifest(copied) as manifest:
        for name in [name for name in manifest["components"] if name not in PART]:
            del manifest["components"][name]
        manifest["components"]["base"]["operations"] = 10**9
        manifest["components"]["dinov2"]["operations"] = None
    return copied


@pytest.fixture(scope="module")
def done(part, tmp_path_factory) -> tuple[dict[str, Any], str, str]:
    """The results, what was printed, and the page."""
    folder = tmp_path_factory.mktemp("results")
    options = ["--backend", "ort", "--precision", "fp32", "--repeats", "2", "--threads", "1"]
    command = [sys.executable, "-m", "mova_export", "bench", str(part), *options]
    files = ["--json", str(folder / "a.json"), "--html", str(folder / "a.html")]
    finished = subprocess.run([*command, *files], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert {file.name for file in folder.iterdir()} == {"a.json", "a.html"}
    results = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    return results, finished.stdout, (folder / "a.html").read_text(encoding="utf-8")


def test_what_was_measured_where_and_with_what(done, part) -> None:
    results, _, _ = done
    assert set(results) == TOP
    assert (results["format"], results["version"], results["complete"]) == ("mova-bench", 1, True)
    assert results["machine"]["memory_bytes"] > 1 << 28
    assert set(results["machine"]) == {"cpu", "cores", "memory_bytes", "system", "gpu"}
    assert {"python", "mova-export", "numpy", "onnxruntime", "openvino"} <= set(results["versions"])
    assert results["command"].startswith(f"mova bench {part} --backend ort --precision fp32 ")
    assert results["load"]["start"] >= 0
    assert results["load"]["end"] >= 0
    described = results["bundle"]
    assert (described["name"], described["origin"], described["components"]) == ("part", "mova_llama", 5)
    assert len(described["sha256"]) == 64
    assert described["parameters"] == sum(one["parameters"] for one in results["components"].values())
    assert results["options"] == {
        **{"warmup": 1, "repeats": 2, "seconds": 0.5, "threads": 1},
        **{"backends": ["ort"], "precisions": ["fp32"], "against": []},
    }
    assert set(results["matrix_rate"]) == {"ort fp32"}
    assert all(rate > 1e8 for rate in results["matrix_rate"].values())


def test_every_component(done) -> None:
    results, printed, _ = done
    assert tuple(results["components"]) == PART
    for name, component in results["components"].items():
        assert [one["label"] for one in component["contenders"]] == ["ort fp32"]
        assert component["ratios"] == {}
        assert f"{name}: " in printed
        for one in component["contenders"]:
            assert set(one) == CONTENDER
            assert one["error"] is None
            assert one["ours"] is True
            assert f"{one['backend']} {one['precision']}" == one["label"]
            assert one["run"]["count"] == 2
            assert 0 < one["run"]["p10"] <= one["run"]["median"] <= one["run"]["p90"] <= one["run"]["p95"]
            assert one["per_second"] == pytest.approx(1 / one["run"]["median"])
            assert one["first_run"] > 0
            assert one["load_warm"] > 0
            assert (one["load_cold"] is not None) is hasattr(os, "posix_fadvise")
            assert 0 < one["memory"]["loaded"] <= one["memory"]["peak"]
            assert one["engine_bytes"] > component["parameters"]
            assert one["parity"]["passed"] is True
            assert one["parity"]["relative_l2"] <= BARS["fp32"].relative_l2
            assert one["group"] == 0
        assert component["fastest"] == "ort fp32"


def test_the_share_of_the_matrix_rate(done) -> None:
    results, _, _ = done
    best = max(results["matrix_rate"].values())
    assert results["components"]["base"]["operations"] == 10**9
    for one in results["components"]["base"]["contenders"]:
        assert one["rate"] == pytest.approx(1e9 / one["run"]["median"])
        assert one["share"] == pytest.approx(one["rate"] / best)
        assert 0 < one["share"] < 1.5
    assert results["components"]["dinov2"]["operations"] is None
    assert all(one["share"] is one["rate"] is None for one in results["components"]["dinov2"]["contenders"])


def test_every_route(done) -> None:
    results, printed, _ = done
    assert [(route["experts"], route["kind"]) for route in results["routes"]] == [([], "none"), (["dinov2"], "single")]
    for route in results["routes"]:
        assert set(route) == ROUTE
        assert route["error"] is None
        assert route["backend"] == "ort:fp32"
        visual, answer = route["first_visual_token"], route["first_answer_token"]
        assert 0 < visual["resident"] < visual["fresh"] < answer["fresh"]
        assert visual["resident"] < answer["resident"] < answer["fresh"]
        assert 0 < route["second_question"] < answer["fresh"]
        assert route["tokens_per_second"] > 0
        assert route["memory"]["peak"] > 1 << 26
        hidden = route["hidden"]
        assert hidden["loading"] > 0
        assert hidden["waited"] + hidden["hidden"] == pytest.approx(hidden["loading"], rel=0.2)
        stages = {stage["name"]: stage for stage in route["stages"]}
        assert {"load base", "base", "load adapter", "load llm", "answer"} <= set(stages)
        assert not any(name.startswith("check ") for name in stages)
        assert ("load dinov2" in stages) == bool(route["experts"])
        starts = [stage["start"] for stage in route["stages"]]
        assert starts == sorted(starts)
        assert starts[0] >= 0
        fused = next(stage for name, stage in stages.items() if name.startswith("adapter"))
        assert visual["fresh"] == pytest.approx(fused["start"] + fused["duration"])
    assert "\nroute " in printed


def test_everything_at_once(done) -> None:
    results, printed, _ = done
    found = results["everything"]
    single = results["routes"][1]["memory"]["peak"]
    assert found["measured"] is True
    assert found["one_expert_mean"] == single
    assert found["one_expert_share"] == pytest.approx(single / found["memory"]["peak"])
    assert 0.3 < found["one_expert_share"] < 1.5
    assert "everything loaded: " in printed


def test_the_page_is_of_these_results(done) -> None:
    _, _, page = done
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert all(name in page for name in ("dinov2", "ort fp32"))


def test_against_torch_in_the_same_run(mova_command, bundle, checkpoint, tmp_path) -> None:
    copied = copy_bundle(bundle(2), tmp_path / "bundle")
    with edited_manifest(copied) as manifest:
        manifest["components"]["deplot"]["operations"] = None
    options = ["--only", "deplot", "--backend", "ort", "--against", "torch", "--checkpoint", checkpoint(2)]
    more = ["--repeats", "3", "--threads", "1", "--json", tmp_path / "a.json"]
    finished = mova_command("bench", copied, *options, *more)
    assert finished.status == 0, finished.error
    results = json.loads((tmp_path / "a.json").read_text())
    assert (results["routes"], results["everything"]) == ([], None)
    assert results["options"]["against"] == ["torch"]
    component = results["components"]["deplot"]
    found = {one["label"]: one for one in component["contenders"]}
    assert [(label, one["ours"], one["error"]) for label, one in found.items()] == [
        *(("ort fp32", True, None), ("torch fp32", False, None), ("torch bf16", False, None))
    ]
    assert component["operations"] > 10**6  # counted by torch, where the bundle does not tell
    assert set(component["ratios"]) == {"ort fp32"}
    for label, ratio in component["ratios"]["ort fp32"].items():
        assert ratio["count"] == 3
        assert ratio["p10"] <= ratio["median"] <= ratio["p90"]
        medians = found["ort fp32"]["run"]["median"] / found[label]["run"]["median"]
        assert 0.25 < ratio["median"] / medians < 4, "ours over theirs, and not the other way"
        assert found[label]["parity"]["passed"] is None
        assert found[label]["parity"]["cosine"] > 0.999
        assert found[label]["engine_bytes"] is None
        assert found[label]["memory"]["peak"] > 0
    assert found["torch fp32"]["parity"]["relative_l2"] < 1e-5 < found["torch bf16"]["parity"]["relative_l2"]
    assert component["fastest"] == "ort fp32"


def test_torch_makes_a_presets_weights_again(bundle, checkpoint, monkeypatch) -> None:
    """Over a stand-in for the preset: the tiny checkpoint under its name."""
    asked: list[tuple[str, int]] = []

    def model(name: str, seed: int) -> Checkpoint:
        asked.append((name, seed))
        return Checkpoint(checkpoint(2))

    monkeypatch.setattr("mova_export.checkpoint.random_model.RandomModel", model)
    opened, threads = Bundle.open(bundle(2)), torch.get_num_threads()
    subject = TorchSubject(opened, "biomedclip", "fp32", threads, Origin(preset="mova-8b", seed=4), compiled=False)
    subject.start()
    subject.load()
    subject.run()
    assert asked == [("mova-8b", 4)]
    probe = opened.component("biomedclip").probe
    for name, found in subject.outputs().items():
        assert compare(name, found, np.load(opened.path(probe.outputs[name]))).relative_l2 < 1e-5
    subject.close()


def test_an_interrupt_keeps_what_there_is_and_ends_every_process(bundle, tmp_path) -> None:
    file = tmp_path / "a.json"
    command = [sys.executable, "-m", "mova_export", "bench", str(bundle(2)), "--backend", "ort", "--repeats", "1"]
    with subprocess.Popen(
        [*command, "--threads", "1", "--json", str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("vary:"):  # base and dinov2 are done
                break
        children, before = _children(process.pid), []
        while not children or children != before:  # until what measures it has begun, and is known to whoever ends it
            assert process.poll() is None
            time.sleep(0.3)
            children, before = _children(process.pid), children
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    results = json.loads(file.read_text())
    found = list(results["components"])
    assert error.splitlines() == [f"interrupted after {len(found)} components, kept: {file}", "mova: interrupted"]
    assert found in (["base", "dinov2"], ["base", "dinov2", "vary"]), "a fast machine may have done one more"
    assert results["complete"] is False
    assert children
    assert not [child for child in children if _is_running(child)]


def test_without_torch_and_onnx() -> None:
    """A Jetson has neither."""
    code = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'onnx', 'transformers', 'onnx_ir', 'safetensors'):\n"
        "            raise ModuleNotFoundError(f'{name} is blocked', name=name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "import importlib, pkgutil, mova_export.bench\n"
        "for module in pkgutil.walk_packages(mova_export.bench.__path__, 'mova_export.bench.'):\n"
        "    if module.name != 'mova_export.bench.torch_modules':\n"
        "        importlib.import_module(module.name)\n"
        "        print(module.name)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert len(finished.stdout.split()) > 20


def _children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in listed]


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
