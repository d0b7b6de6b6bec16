"""Checkpoints and bundles that tests share: made once a run, by the same commands a user would type."""

from __future__ import annotations

import gc
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
from once import once
from reference_data import GOLDEN_SEEDS

if not gpu():
    # Before any kernel is imported: Triton then runs them on the CPU, in numpy.
    os.environ["TRITON_INTERPRET"] = "1"

MakePath = Callable[[int], Path]

GARBAGE = 100_000
"""Objects after which Python looks for cycles: tracing makes millions that stay, and a fifth of it is walking them."""

EXPORT = f"import gc, sys; gc.set_threshold({GARBAGE}, 20, 20); from mova_export.cli import main; sys.exit(main())"
"""What `mova` is, but for the garbage."""

NEEDS_GPU = "needs a GPU"
"""A test's property: the modules of ours that it would have run there."""


def pytest_collection_finish() -> None:
    """What is imported by now stays: looking for cycles need not walk it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE, 20, 20)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `gpu` runs where there is one."""
    if item.get_closest_marker("gpu") and not gpu():
        item.user_properties.append((NEEDS_GPU, [module for mark in item.iter_markers("gpu") for module in mark.args]))
        pytest.skip("no NVIDIA GPU, or no driver for it")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What did not run for want of a GPU is said at the end."""
    skipped = terminalreporter.stats.get("skipped", ())
    told = {report.nodeid: dict(report.user_properties).get(NEEDS_GPU) for report in skipped}
    missed = {test: modules for test, modules in told.items() if modules is not None}
    if missed:
        terminalreporter.section("never run on real hardware")
        terminalreporter.write_line(
            "modules: " + ", ".join(sorted({name for names in missed.values() for name in names}))
        )
        for test in sorted({test.partition("[")[0] for test in missed}):
            terminalreporter.write_line(f"  {test}")


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
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of a test run have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def checkpoint(shared: Path) -> MakePath:
    """checkpoint(seed): a tiny checkpoint's folder; not to be changed by a test."""
    from mova_export.demo.checkpoint import write_tiny_checkpoint

    def make(seed: int) -> Path:
        out = shared / "checkpoints" / f"seed{seed}"
        with once(out) as there:
            if not there:
                half = out.with_name(f"{out.name}.half")
                write_tiny_checkpoint(half, seed=seed)
                half.rename(out)
        return out

    return make


@pytest.fixture(scope="session")
def bundle(shared: Path, checkpoint: MakePath) -> Iterator[MakePath]:
    """bundle(seed): a golden seed's exported bundle; not to be changed by a test.

    Two exports run at a time, each in a process of its own. MOVA_TEST_BUNDLES names a folder to keep them in between
    runs, for whoever works on the runtime alone.
    """
    kept = os.environ.get("MOVA_TEST_BUNDLES")
    root = Path(kept) if kept else shared / "bundles"

    def export(seed: int) -> Path:
        out = root / f"seed{seed}"
        with once(out) as there:
            if not there:
                command = [sys.executable, "-c", EXPORT, "export", str(checkpoint(seed)), "--out", str(out)]
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                done = subprocess.run(command, env=environment, capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
        return out

    with ThreadPoolExecutor(max_workers=2) as workers:
        exports: dict[int, Future[Path]] = {seed: workers.submit(export, seed) for seed in GOLDEN_SEEDS}
        yield lambda seed: exports[seed].result()
        workers.shutdown(cancel_futures=True)
