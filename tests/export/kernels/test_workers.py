"""Processes that compile: what they can't compile, how they end, where they find modules."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from command_line import MovaCommand, assert_user_error
from kernel_bundles import TINY, hidden
from mova_export.errors import ExportError
from mova_export.kernels import order, workers
from mova_export.kernels.parameters import compiler_shape
from mova_export.kernels.workers import Workers
from mova_kernels.targets import TARGETS
from mova_kernels.variants import Variant, variants
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.kernels import (
    read_kernels,
)


def small(name: str = "convert") -> Variant:
    (found,) = [one for one in variants(compiler_shape(TINY), "bf16", TARGETS["sm_87"]) if one.name == name]
    return found


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("convert", "ptxas fatal : Value 'sm_199a' is not defined for option 'gpu-name'"),
        ("squeeze", "its process ended with signal SIGABRT: LLVM ERROR: "),
    ],
)
def test_a_target_that_triton_does_not_know_is_told_and_nothing_is_left(
    name: str, reason: str, fresh: Path, few: object, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "variants", lambda *of: tuple(one for one in variants(*of) if one.name == name))
    unknown = dataclasses.replace(TARGETS["sm_120"], capability="sm_199", devices="RTX 99")
    monkeypatch.setitem(TARGETS, "sm_199", unknown)
    assert mova_command("kernels", fresh, "--target", "sm_87").status == 0
    ran = mova_command("kernels", fresh, "--target", "sm_87,sm_199")
    assert_user_error(ran, f"{name}: Triton {order.triton.__version__} can't compile it for sm_199 (RTX 99) ({reason}")
    assert hidden(fresh) == []
    assert not (fresh / "kernels/sm_199").exists()
    read_kernels(Bundle.open(fresh), "sm_87", "bf16")  # done before, and stays


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("import sys; sys.exit('no libstdc++.so.6')", "status 1: no libstdc++.so.6"),
        ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL"),
        ("import sys; sys.stdin.buffer.read(1); print('noise', flush=True)", "status 0"),
    ],
)
def test_a_process_that_ends_is_told(code: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_START", code)
    compiling = Workers(tmp_path, [(TARGETS["sm_87"], small())])
    with compiling, pytest.raises(ExportError, match=re.escape(f"(its process ended with {end}")) as told:
        list(compiling.compiled())
    version = order.triton.__version__
    assert str(told.value).startswith(f"convert: Triton {version} can't compile it for sm_87 (Jetson Orin) (")


def test_processes_find_modules_where_this_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "elsewhere.py").write_text(
        "import triton, triton.language as tl\n\n\n"
        "@triton.jit\ndef toy(x, B: tl.constexpr):\n    tl.store(x + tl.arange(0, B), 1.0)\n",
        encoding="utf-8",
    )
    variant = Variant("toy", "elsewhere:toy", (("x", "*fp32"),), {"B": 64}, 1, 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("here")  # relative, as a script's folder may be
    with Workers(tmp_path, [(TARGETS["sm_87"], variant)]) as compiling:
        ((_, made),) = compiling.compiled()
    assert made.symbol == "toy"
    assert list(tmp_path.glob("tmp*")) == []
