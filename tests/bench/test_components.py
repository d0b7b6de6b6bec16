"""One component measured by real processes, of which some die, hang or compute something else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from bundle_copy import copy_bundle, edited_manifest, file_entry
from mova_export.bench.candidates import Candidate
from mova_export.bench.components import Setting, measure
from mova_export.bench.process import Worker
from mova_export.bench.turns import Budget
from mova_runtime.bundle import Bundle

ORT, OPENVINO = Candidate("ort", "fp32"), Candidate("openvino", "fp32")

DIES = """
import os, sys
from mova_export.bench import held, worker

def die(self, *_, **__):
    print("no more memory", file=sys.stderr, flush=True)
    os._exit(7)

setattr(held.Held, sys.argv[1], die)
worker.main()
"""


def setting(bundle: Bundle, start: Callable[[], Worker] = Worker) -> Setting:
    return Setting(bundle, threads=1, warmup=1, budget=Budget(2, 1.0), start=start)


def workers(*commands: list[str] | None) -> Callable[[], Worker]:
    """Starts these in turn; None is the usual one."""
    left: Iterator[list[str] | None] = iter(commands)

    def start() -> Worker:
        command = next(left)
        return Worker(command) if command else Worker()

    return start


def test_contenders_are_timed_together_and_the_fastest_is_told(bundle) -> None:
    found = measure(setting(Bundle.open(bundle(2))), "deplot", [ORT, OPENVINO])
    medians = {label: one.median for label, one in found.contenders.items()}
    assert found.fastest
    assert medians[found.fastest.candidate.label] == min(medians.values())
    assert [one.group for one in found.contenders.values()] == [0, 0]
    written = found.to_json({"ort fp32": 1e9})
    assert written["fastest"] == found.fastest.candidate.label
    assert [one["label"] for one in written["contenders"]] == ["ort fp32", "openvino fp32"]


@pytest.mark.parametrize("step", ["start", "load", "first", "judge", "run"])
def test_one_that_dies_costs_no_other(bundle, step: str) -> None:
    start = workers([sys.executable, "-c", DIES, step], None)
    found = measure(setting(Bundle.open(bundle(2)), start), "deplot", [OPENVINO, ORT])
    dead, alive = found.contenders["openvino fp32"], found.contenders["ort fp32"]
    assert dead.error == "its process ended with status 7: no more memory"
    assert not dead.times
    assert alive.error is None
    assert len(alive.times) == 2
    assert found.fastest is alive
    alive.error = "its process ended, when it had been timed"
    assert found.fastest is None


def test_one_that_computes_something_else_is_not_timed(bundle, tmp_path) -> None:
    copied = copy_bundle(bundle(2), tmp_path / "bundle")
    with edited_manifest(copied) as manifest:
        outputs = manifest["components"]["deplot"]["probe"]["outputs"]
        path = copied / outputs["keys"]["path"]
        array = np.load(path)
        path.unlink()
        np.save(path, array * np.float32(1.1))
        outputs["keys"] = file_entry(copied, outputs["keys"]["path"])
    found = measure(setting(Bundle.open(copied)), "deplot", [ORT])
    wrong = found.contenders["ort fp32"]
    assert wrong.parity is not None
    assert wrong.parity["passed"] is False
    assert wrong.parity["relative_l2"] == pytest.approx(0.1 / 1.1, rel=1e-2)
    assert str(wrong.error).startswith("not what torch computed: cosine")
    assert not wrong.times
    assert found.fastest is None


def test_an_engine_that_is_not_there_is_told(bundle) -> None:
    found = measure(setting(Bundle.open(bundle(2))), "deplot", [Candidate("ort", "fp16"), ORT])
    assert "not exported in fp16" in str(found.contenders["ort fp16"].error)
    assert found.contenders["ort fp32"].times


def test_a_file_with_other_bytes_is_told(bundle, tmp_path) -> None:
    copied = copy_bundle(bundle(2), tmp_path / "bundle")
    path = copied / "components/deplot/fp32/model.onnx.data"
    data = bytearray(path.read_bytes())
    data[100] ^= 255
    path.unlink()
    path.write_bytes(data)
    found = measure(setting(Bundle.open(copied)), "deplot", [ORT])
    assert "sha256 differs" in str(found.contenders["ort fp32"].error)


def test_files_leave_the_page_cache_and_come_back(bundle, tmp_path) -> None:
    """By what the system says of a copy of the weights."""
    from mova_export.bench.page_cache import forget
    from mova_runtime.engines.pages import read_in

    path = tmp_path / "weights"
    path.write_bytes((bundle(2) / "components/base/fp32/model.onnx.data").read_bytes())
    assert forget([path]) is hasattr(os, "posix_fadvise")
    if read_in(path) == 0:
        pytest.skip("this file system keeps everything")
    assert read_in(path) == 0
