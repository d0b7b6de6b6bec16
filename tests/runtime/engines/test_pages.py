"""Files are in the page cache before they are mapped, and a disk that fails is an error of the load."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mova_runtime as mova
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.manifest import Precision
from mova_runtime.engines import pages
from mova_runtime.engines.machine import multiplies
from mova_runtime.engines.ov import OpenVinoBackend
from reference_data import IMAGES

STEP = 4 << 20


def forget(path: Path) -> None:
    """Take a file out of the page cache: what was not written to the disk yet stays."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("size", [0, 1, STEP - 1, STEP, 2 * STEP + 12_345])
def test_what_was_forgotten_is_read_once(tmp_path: Path, size: int) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(size))
    forget(path)
    assert pages.read_in(path) in (0, size), "0 on a file system that is in memory"
    assert pages.read_in(path) == 0


def test_only_what_is_missing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(3 * STEP + 1))
    monkeypatch.setattr(pages, "_resident", lambda file, size: np.array([True, False, True, True]))
    assert pages.read_in(path) == STEP


def test_a_system_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(STEP))
    monkeypatch.setattr(pages, "_mincore", lambda: None)
    assert pages.read_in(path) == 0


@pytest.mark.parametrize(
    ("user", "writes", "told"),
    [("owner", False, True), ("root", False, True), ("other", True, True), ("other", False, False)],
)
def test_who_is_not_told_reads_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: str, writes: bool, told: bool
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(STEP + 1))
    owner = path.stat().st_uid
    monkeypatch.setattr(pages, "_resident", lambda file, size: np.array([True, True]))
    monkeypatch.setattr(os, "geteuid", lambda: {"owner": owner, "root": 0, "other": owner + 1}[user])
    monkeypatch.setattr(os, "access", lambda path, mode, **how: writes and mode == os.W_OK)
    assert pages.read_in(path) == (0 if told else STEP + 1)


def resident(path: Path) -> int:
    """Bytes of a file that this process holds where it has it mapped."""
    entries = Path("/proc/self/smaps").read_text(encoding="utf-8").split("VmFlags")
    return 1024 * sum(int(e.split("Rss:")[1].split()[0]) for e in entries if f"{path}\n" in e)


@pytest.mark.parametrize("access", [mmap.ACCESS_READ, mmap.ACCESS_COPY])
def test_pages_are_let_go_unless_they_may_have_been_written(tmp_path: Path, access: int) -> None:
    path, other = tmp_path / "weights", tmp_path / "others"
    content = np.random.default_rng(0).bytes(1 << 22)
    for file in (path, other):
        file.write_bytes(content)
    with path.open("rb") as opened, other.open("rb") as beside:
        mapped, left = mmap.mmap(opened.fileno(), 0, access=access), mmap.mmap(beside.fileno(), 0, access=access)
        assert mapped[:] == left[:] == content
        assert resident(path) == resident(other) == len(content)
        pages.let_go([path])
        assert resident(path) == (0 if access == mmap.ACCESS_READ else len(content))
        assert resident(other) == len(content)
        assert mapped[:] == content  # read again when it is asked for
        mapped.close()
        left.close()


@pytest.mark.parametrize(
    ("precision", "held"),
    [
        ("fp32", True),
        pytest.param(
            "bf16",
            False,
            marks=pytest.mark.skipif(not multiplies("bf16"), reason="this processor has no bfloat16 instructions"),
        ),
    ],
)
def test_openvino_holds_no_weights_that_it_rounded(
    bundle: Callable[[int], Path], precision: Precision, held: bool
) -> None:
    opened = Bundle.open(bundle(0))
    _, weights = (opened.path(file) for file in opened.artifact("dinov2", "fp32").files)
    engine = OpenVinoBackend(precision, 1).load(opened, "dinov2")
    assert (resident(weights) > 0) == held
    engine.close()


@pytest.mark.parametrize("backend", ["ort", "openvino"])
def test_a_disk_that_fails(bundle: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    def fail(path: Path) -> int:
        if "sam" in str(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return 0

    monkeypatch.setattr(pages, "read_in", fail)
    with mova.open(bundle(2), backend=backend) as runtime:
        with pytest.raises(mova.IntegrityError, match=r"sam.*: can't be read \(Input/output error\)"):
            runtime.features(IMAGES / "chart.png", "sam")
        assert runtime.features(IMAGES / "chart.png", "deplot").any()


def test_a_bundles_files_are_checked_first(bundle: Callable[[int], Path]) -> None:
    opened = Bundle.open(bundle(2))
    files = opened.artifact("sam", "fp32").files
    assert pages.ready(opened, files) == [opened.path(file) for file in files]
