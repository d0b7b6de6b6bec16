"""Checkpoints and bundles that tests share: made once a run, by the same commands a user would type."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from command_line import Done, MovaCommand
from mova_export.cli import main
from mova_runtime.engines.nvidia import gpu
from reference_data import GOLDEN_SEEDS, TWICE

MakePath = Callable[[int], Path]

GPU_TESTS = pytest.StashKey[list[pytest.Item]]()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `gpu` runs where there is one."""
    if item.get_closest_marker("gpu") and not gpu():
        pytest.skip("no NVIDIA GPU, or no driver for it")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What did not run for want of a GPU is said at the end."""
    skipped = {report.nodeid for report in terminalreporter.stats.get("skipped", ())}
    missed = [item for item in config.stash.get(GPU_TESTS, ()) if item.nodeid in skipped]
    if missed:
        modules = {module for item in missed for mark in item.iter_markers("gpu") for module in mark.args}
        terminalreporter.section("never run on real hardware")
        terminalreporter.write_line("modules: " + ", ".join(sorted(modules)))
        for test in sorted({item.nodeid.partition("[")[0] for item in missed}):
            terminalreporter.write_line(f"  {test}")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remember which tests need a GPU."""
    session.config.stash[GPU_TESTS] = [item for item in session.items if item.get_closest_marker("gpu")]


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Verdicts and timings of a test run stay out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOVA_CACHE", str(folder))
        yield folder


@pytest.fixture
def mova_command(capfd: pytest.CaptureFixture[str]) -> MovaCommand:
    """mova_command("run", ...): the command line, in this process; an exception that leaves it fails the test."""

    def call(*arguments: object) -> Done:
        capfd.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as leaving:  # argparse leaves so
            status = leaving.code if isinstance(leaving.code, int) else 1
        return Done(status, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakePath:
    """checkpoint(seed): a tiny checkpoint's folder; not to be changed by a test."""
    from mova_export.demo.checkpoint import write_tiny_checkpoint

    root = tmp_path_factory.mktemp("checkpoints")

    def make(seed: int) -> Path:
        out = root / f"seed{seed}"
        if not out.exists():
            write_tiny_checkpoint(out, seed=seed)
        return out

    return make


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, checkpoint: MakePath) -> Iterator[MakePath]:
    """bundle(seed): a golden seed's exported bundle; not to be changed by a test.

    Two exports run at a time, each in a process of its own. MOVA_TEST_BUNDLES names a folder to keep them in between
    runs, for whoever works on the runtime alone.
    """
    kept = os.environ.get("MOVA_TEST_BUNDLES")
    root = Path(kept) if kept else tmp_path_factory.mktemp("bundles")
    checkpoints = {seed: checkpoint(seed) for seed in GOLDEN_SEEDS}

    def export(seed: int, name: str) -> Path:
        out = root / name
        if not out.exists():
            command = [sys.executable, "-m", "mova_export", "export", str(checkpoints[seed]), "--out", str(out)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        return out

    with ThreadPoolExecutor(max_workers=2) as workers:
        names = [*((seed, f"seed{seed}") for seed in GOLDEN_SEEDS), (GOLDEN_SEEDS[0], "again")]
        exports: dict[str, Future[Path]] = {name: workers.submit(export, seed, name) for seed, name in names}
        yield lambda seed: exports["again" if seed == TWICE else f"seed{seed}"].result()
        workers.shutdown(cancel_futures=True)
