"""A disk that is full or in the way, kills, and two runs at once: kernels are there whole or not at all."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import MovaCommand, assert_user_error
from hard_times import files_at_most, heed_signals
from kernel_bundles import hidden, written
from mova_export.kernels import store
from mova_kernels.targets import TARGETS
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.kernels import (
    KernelSet,
    read_kernels,
    read_weights,
    records,
)
from mova_runtime.errors import EngineKeyError


def test_a_full_disk_leaves_nothing_half_written(fresh: Path, few: object, mova_command: MovaCommand) -> None:
    with files_at_most(10_000_000):
        ran = mova_command("kernels", fresh, "--target", "sm_87")
    assert_user_error(ran, f"{fresh}/kernels: the packed weights can't be written (file too large)")
    assert not (fresh / "kernels").exists()


def test_a_disk_that_is_full_while_compiling_is_told(ours: Path, mova_command: MovaCommand) -> None:
    before = written(ours)
    with files_at_most(4096):
        ran = mova_command("kernels", ours, "--target", "sm_87,sm_89")
    assert_user_error(ran, f"can't compile it for sm_89 (RTX 40, L4) in {ours}/kernels/.partial-")
    assert ran.error.endswith("(file too large)\n")
    assert written(ours) == before
    assert hidden(ours) == []


def test_too_little_space_is_told_before_anything_is_made(
    fresh: Path, few: object, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10 << 20}))
    ran = mova_command("kernels", fresh, "--target", "sm_87,sm_89")
    assert_user_error(ran, "needs about 18.0 MiB, the disk has 10.0 MiB free; nothing was written")
    assert not (fresh / "kernels").exists()


def test_a_place_that_can_not_be_written_is_told(fresh: Path, few: object, mova_command: MovaCommand) -> None:
    (fresh / "kernels").write_text("a file")
    assert_user_error(mova_command("kernels", fresh, "--target", "sm_87"), "kernels can't be written (")
    (fresh / "kernels").unlink()
    (fresh / "kernels/sm_87/bf16.json").mkdir(parents=True)
    ran = mova_command("kernels", fresh, "--target", "sm_87")
    assert_user_error(ran, "kernels for sm_87 can't be written (is a directory)")
    assert hidden(fresh) == []


def test_nothing_is_written_through_a_link_that_leads_out(
    fresh: Path, tmp_path: Path, few: object, mova_command: MovaCommand
) -> None:
    (tmp_path / "outside").mkdir()
    (fresh / "kernels").symlink_to(tmp_path / "outside")
    assert_user_error(mova_command("kernels", fresh, "--target", "sm_87"), "'kernels' leaves the bundle")
    (fresh / "kernels").unlink()
    (fresh / "kernels").mkdir()
    (fresh / "kernels/sm_87").symlink_to(tmp_path / "outside")
    assert_user_error(mova_command("kernels", fresh, "--target", "sm_87"), "leaves the bundle")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_record_is_the_last_to_come(ours: Path, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails while files are put into place: there is no record of what is not there."""
    replace = Path.replace

    def fails(self: Path, target: Path) -> Path:
        if target.name == "bf16-squeeze.cubin":
            raise OSError(5, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails)
    ran = mova_command("kernels", ours, "--target", "sm_87", "--rebuild")
    assert_user_error(ran, "kernels for sm_87 can't be written (input/output error)")
    assert not (ours / "kernels/sm_87/bf16.json").exists()
    assert hidden(ours) == []
    monkeypatch.undo()
    with pytest.raises(EngineKeyError, match="no kernels for sm_87"):
        read_kernels(Bundle.open(ours), "sm_87", "bf16")


def start(bundle: Path) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "mova_export", "kernels", str(bundle), "--target", ",".join(TARGETS)]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals)


def wait_until(process: subprocess.Popen[str], reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)  # polls for the file system to change; nothing is assumed of how long that takes


def at_work(bundle: Path) -> list[int]:
    """Processes that compile into the bundle: their temporary files lie there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TMPDIR={bundle}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it ended, or is another's
            continue
    return found


def test_a_polite_kill_leaves_whole_sets_only(fresh: Path) -> None:
    number = signal.SIGTERM  # others take the same way; the tests of engines send them all
    process = start(fresh)
    wait_until(process, lambda: at_work(fresh))
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode in (128 + number, 130)
    assert "Traceback" not in told
    assert at_work(fresh) == []
    assert hidden(fresh) == []
    opened = Bundle.open(fresh)
    for record in records(opened):
        if isinstance(record, KernelSet):
            read_kernels(opened, record.capability, "bf16")
    read_weights(opened, "bf16")  # they came first


def test_a_hard_kill_leaves_no_half_set_and_the_next_run_cleans_up(
    fresh: Path, few: object, mova_command: MovaCommand
) -> None:
    process = start(fresh)
    wait_until(process, lambda: at_work(fresh))
    process.kill()
    process.communicate(timeout=60)
    assert len(hidden(fresh)) == 1
    deadline = time.monotonic() + 60
    while at_work(fresh):  # they see that nobody waits when they have an answer
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert mova_command("kernels", fresh, "--target", "sm_87").status == 0
    assert hidden(fresh) == []


def test_two_runs_at_once_leave_one_whole_set(fresh: Path) -> None:
    code = (
        "import sys\n"
        "from mova_export.kernels import order, workers\n"
        "workers._cores = lambda: 1\n"
        "real = order.variants\n"
        "order.variants = lambda *a: tuple(one for one in real(*a) if one.name in ('convert', 'pool'))\n"
        "whole = order.plan\n"
        "order.plan = lambda *a: whole(*a)[:5]\n"
        "from mova_export.cli import main\n"
        "sys.exit(main(['kernels', sys.argv[1], '--target', 'sm_87,sm_89']))"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(fresh)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for one in runs:
        _, told = one.communicate(timeout=120)
        assert one.returncode == 0, told.decode()
    opened = Bundle.open(fresh)
    assert len(read_kernels(opened, "sm_87", "bf16").kernels) == 2
    digest = hashlib.sha256((fresh / "kernels/weights/bf16.bin").read_bytes()).hexdigest()
    assert read_weights(opened, "bf16").file.sha256 == digest
    assert hidden(fresh) == []
