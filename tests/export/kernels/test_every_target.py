"""Everything that an adapter launches, compiled for every target by one command: what lies in a bundle then."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle_copy import copy_bundle
from kernel_bundles import TINY, hidden
from mova_export.kernels.parameters import compiler_shape
from mova_export.kernels.workers import Workers
from mova_kernels.targets import TARGETS, Target
from mova_kernels.variants import variants
from mova_runtime.bundle import Bundle, sha256_of
from mova_runtime.bundle.kernels import (
    is_current,
    read_kernels,
    records,
)
from mova_runtime.bundle.schema import from_json, to_json

MakePath = Callable[[int], Path]


@dataclasses.dataclass(frozen=True)
class Made:
    root: Path
    output: str


@pytest.fixture(scope="module")
def made(bundle: MakePath, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Everything for all targets, by the command a user would type, in an environment made for something else."""
    root = copy_bundle(bundle(2), tmp_path_factory.mktemp("made") / "bundle")
    line = [sys.executable, "-m", "mova_export", "kernels", str(root), "--target", ",".join(TARGETS)]
    hostile = {
        "TRITON_INTERPRET": "1",
        "TRITON_CACHE_DIR": str(root.parent / "cache"),
        "TRITON_DISABLE_LINE_INFO": "0",
        "TRITON_KERNEL_DUMP": "1",
        "TRITON_DUMP_DIR": str(root.parent / "dump"),
        "DISABLE_LLVM_OPT": "1",
        "DISABLE_PTXAS_OPT": "1",
    }
    done = subprocess.run(line, env={**os.environ, **hostile}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in root.parent.iterdir()} == {"bundle"}
    return Made(root, done.stdout)


@pytest.fixture
def opened(made: Made) -> Bundle:
    return Bundle.open(made.root)


@pytest.mark.parametrize("target", TARGETS.values(), ids=str)
def test_a_targets_kernels_are_there_with_what_launching_them_takes(target: Target, opened: Bundle) -> None:
    record = read_kernels(opened, target.capability, "bf16")
    assert (record.capability, record.precision, record.shape) == (target.capability, "bf16", TINY)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", record.triton)
    assert re.fullmatch(r"\d+\.\d+", record.toolkit)
    wanted = {one.name: one for one in variants(compiler_shape(TINY), "bf16", target)}
    assert list(record.kernels) == list(wanted)
    for name, kernel in record.kernels.items():
        assert kernel.file.path == f"kernels/{target.capability}/bf16-{name}.cubin"
        assert sha256_of(opened.root / kernel.file.path) == kernel.file.sha256
        assert tuple((one.name, one.type) for one in kernel.arguments) == wanted[name].signature
        assert kernel.constants == wanted[name].constants
        assert kernel.warps == wanted[name].num_warps
        assert kernel.symbol == wanted[name].kernel.partition(":")[2]
        assert set(kernel.scratch) == {"global", "profile"}
        assert 0 <= kernel.shared <= target.shared
        assert 16 <= kernel.registers <= 255
        assert kernel.spills == 0, f"{name} spills {kernel.spills} bytes on {target}"


@pytest.mark.parametrize("target", TARGETS.values(), ids=str)
def test_a_cubin_says_the_same_of_itself(target: Target, opened: Bundle) -> None:
    """Asked of NVIDIA's tool, which knows nothing of our record: GPU, entry, registers, memory of the stack."""
    from triton import knobs

    record = read_kernels(opened, target.capability, "bf16")
    for name in ("cross_attention", "combine", "embed", "gate_weights"):
        kernel = record.kernels[name]
        path = opened.root / kernel.file.path
        tool = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)]
        told = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
        usage = re.search(rf"Function {kernel.symbol}:\s+REG:(\d+) STACK:(\d+) ", told)
        assert usage, told
        assert int(usage[1]) == kernel.registers
        assert int(usage[2]) == kernel.spills == 0
        elf = subprocess.run([knobs.nvidia.cuobjdump.path, "-elf", str(path)], capture_output=True, text=True)
        assert re.search(rf"\bsm[_=]{target.arch}a?\b", elf.stdout)


def test_attention_and_combine_spill_nothing_at_full_size(tmp_path: Path) -> None:
    full = dataclasses.replace(compiler_shape(TINY), hidden=4096, grid=48, blocks=3)
    tasks = [
        (target, one)
        for target in TARGETS.values()
        if target.capability not in ("sm_86", "sm_110")  # compiled as for sm_89 and sm_100; above, and for the table
        for one in variants(full, "bf16", target)
        if one.name in ("cross_attention", "self_attention", "combine")
    ]
    with Workers(tmp_path, tasks) as compiling:
        found = [(target, one) for target, one in compiling.compiled()]
    assert len(found) == 3 * (len(TARGETS) - 2)
    for target, one in found:
        assert one.constants["EVEN"] == 1
        assert one.spills == 0, f"{one.name} spills {one.spills} bytes on {target}"
        assert one.shared <= target.shared


def test_a_line_tells_of_the_weights_and_of_each_target(made: Made) -> None:
    first, weights, *lines = made.output.splitlines()
    assert first.endswith(f"bf16, for {', '.join(map(str, TARGETS.values()))}")
    assert re.fullmatch(r"weights +\d+ tensors +66\.8 MiB +\d+\.\d s", weights)
    assert [line.split()[0] for line in lines] == list(TARGETS)
    assert all(re.fullmatch(r"sm_\d+ +19 kernels +\d+\.\d KiB +\d+\.\d s", line) for line in lines)


def test_records_are_read_back_as_they_were_written(opened: Bundle) -> None:
    found = records(opened)
    assert len(found) == len(TARGETS) + 1
    for record in found:
        assert from_json(type(record), json.loads(json.dumps(to_json(record))), "record") == record
        assert is_current(opened, record)
    assert hidden(opened.root) == []


def test_the_same_bytes_come_out_again(made: Made, tmp_path: Path) -> None:
    """Elsewhere, in other processes, in fp16 first, and without what the first run's environment held."""
    root = copy_bundle(made.root, tmp_path / "elsewhere" / "bundle")
    line = [sys.executable, "-m", "mova_export", "kernels", str(root), "--target", "sm_87", "--rebuild"]
    subprocess.run(line, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    for path in sorted((root / "kernels").rglob("*")):
        if path.is_file() and path.parent.name in ("sm_87", "weights"):
            original = made.root / path.relative_to(root)
            assert path.read_bytes() == original.read_bytes(), path.name
            assert (path.stat().st_ino == original.stat().st_ino) is False
