"""A disk that is full or in the way, kills, and two builds at once: engines are there whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import MovaCommand, assert_user_error
from engine_bundles import NAMES, RTX, engine_files, hidden, needs_tensorrt_rtx
from hard_times import files_at_most, heed_signals
from mova_export.engines import store as engine_store
from mova_export.engines.order import order
from mova_export.engines.store import EngineStore
from mova_export.engines.targets import TARGETS
from mova_runtime.bundle import Bundle

MakePath = Callable[[int], Path]
pytestmark = needs_tensorrt_rtx


def test_a_full_disk_leaves_whole_engines_only(fresh: Path, mova_command: MovaCommand) -> None:
    with files_at_most(4_000_000):  # deplot's engine fits, dinov2's does not
        ran = mova_command("build", fresh, *RTX, "--target", "sm_86", "--only", "deplot,dinov2")
    assert_user_error(ran, "dinov2 for sm_86 can't be written (file too large); engines built before it stay")
    assert [record.key.component for record in Bundle.open(fresh).engines()] == ["deplot"]
    assert hidden(fresh) == []


def test_too_little_space_is_told_before_anything_is_built(
    fresh: Path, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_store.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 200 << 20}))
    ran = mova_command("build", fresh, *RTX, "--target", "sm_86,sm_89", "--only", "adapter")
    assert_user_error(ran, "MiB, the disk has 200.0 MiB free; nothing was built")
    assert not (fresh / "engines").exists()


def test_engines_are_not_written_through_a_link_that_leads_out(
    fresh: Path, tmp_path: Path, mova_command: MovaCommand
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (fresh / "engines").symlink_to(tmp_path / "elsewhere")
    ran = mova_command("build", fresh, *RTX, "--target", "sm_86", "--only", "deplot")
    assert_user_error(ran, "'engines' leaves the bundle")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_when_the_swap_fails_the_old_engine_comes_back(
    deplot: Path, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("build", deplot, *RTX, "--target", "sm_86", "--only", "deplot")
    before, rename = engine_files(deplot), Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.parent.name.startswith(".partial-") and not self.name.endswith(".replaced"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    assert_user_error(mova_command(*arguments, "--rebuild"), "input/output error")
    assert engine_files(deplot) == before
    assert hidden(deplot) == []


def start_build(bundle: Path, *arguments: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "mova_export", "build", str(bundle), *RTX, "--target", ",".join(NAMES), *arguments]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals)


def wait_until(process: subprocess.Popen[str], reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)  # polls for the file system to change; nothing is assumed of how long that takes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_polite_kill_leaves_whole_engines_only(number: signal.Signals, fresh: Path) -> None:
    process = start_build(fresh, "--only", "deplot,biomedclip")
    wait_until(process, lambda: len(engine_files(fresh)) >= 3)  # biomedclip's take longest
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode in (128 + number, 130)
    assert "Traceback" not in told
    assert hidden(fresh) == []
    opened = Bundle.open(fresh)
    records = opened.engines()
    assert 3 <= len(records) < 6
    for record in records:
        opened.checked_path(record.file)


def test_a_hard_kill_leaves_no_half_engine_and_the_next_build_cleans_up(fresh: Path, mova_command: MovaCommand) -> None:
    process = start_build(fresh, "--only", "biomedclip")
    wait_until(process, lambda: hidden(fresh))
    process.kill()
    process.communicate(timeout=60)
    opened = Bundle.open(fresh)
    for record in opened.engines():
        opened.checked_path(record.file)
    assert len(hidden(fresh)) == 1
    assert mova_command("build", fresh, *RTX, "--target", "sm_86", "--only", "deplot").status == 0
    assert hidden(fresh) == []


def test_a_record_in_a_half_written_folder_is_not_an_engine(fresh: Path) -> None:
    folder = fresh / "engines/.partial-1-abc/0123"
    folder.mkdir(parents=True)
    (folder / "engine.json").write_text("{}")
    assert Bundle.open(fresh).engines() == ()


def test_a_build_at_work_is_not_taken_for_abandoned(fresh: Path) -> None:
    opened = Bundle.open(fresh)
    with EngineStore(opened) as first:
        with EngineStore(opened) as second:
            assert len(hidden(fresh)) == 2
            key = order(opened, "tensorrt-rtx", "fp32", [TARGETS["sm_86"]], components=["deplot"]).all[0]
            records = [
                store.put(key, lambda write, data=data: write(memoryview(data)))
                for store, data in ((first, b"first"), (second, b"later"))
            ]
            assert [record.key for record in records] == [key, key]
        assert opened.engines()[0].file.bytes == 5
        assert (fresh / f"engines/{key.name}/engine.plan").read_bytes() == b"later"
    assert hidden(fresh) == []


def test_builds_that_come_and_go_at_once_do_not_trip_over_each_other(fresh: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from mova_export.engines.store import EngineStore; from mova_runtime.bundle import Bundle\n"
        "bundle = Bundle.open(Path(sys.argv[1]))\n"
        "for _ in range(150):\n"
        "    with EngineStore(bundle): pass\n"
    )
    builds = [subprocess.Popen([sys.executable, "-c", code, str(fresh)], stderr=subprocess.PIPE) for _ in range(3)]
    for build in builds:
        _, error = build.communicate()
        assert build.returncode == 0, error.decode()
    assert not (fresh / "engines").exists()


def test_of_two_builds_that_end_at_once_one_stays(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, rename = Bundle.open(fresh), Path.rename

    def unseen(self: Path, target: Path) -> Path:
        if target.name.endswith(".replaced"):  # the other comes between looking and renaming
            raise FileNotFoundError
        return rename(self, target)

    with EngineStore(opened) as store:
        key = order(opened, "tensorrt-rtx", "fp32", [TARGETS["sm_86"]], components=["deplot"]).all[0]
        store.put(key, lambda write: write(memoryview(b"first")))
        monkeypatch.setattr(Path, "rename", unseen)
        store.put(key, lambda write: write(memoryview(b"second")))
    (record,) = opened.engines()
    assert opened.checked_path(record.file).read_bytes() == b"first"
    assert hidden(fresh) == []


HELD = """
import signal
from mova_export.engines.interrupts import Interrupts

interrupts = Interrupts()
try:
    with interrupts:
        signal.raise_signal(signal.SIGINT)
        print("held back", interrupts.pending == signal.SIGINT)
except KeyboardInterrupt:
    print("raised")
"""


def test_a_signal_is_held_back_and_then_raised() -> None:
    """In a process of its own: a library that a test before has loaded may have its own idea of SIGINT."""
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, preexec_fn=heed_signals)
    assert done.stdout.splitlines() == ["held back True", "raised"], done.stderr
