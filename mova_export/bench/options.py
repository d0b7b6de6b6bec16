"""What is asked of a benchmark, found wrong before anything is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mova_export.bench.writing import check_writable
from mova_export.errors import BenchError
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.manifest import PRECISIONS, Precision
from mova_runtime.engines.abilities import BACKENDS, RUNS, lacking
from mova_runtime.engines.backends import check_threads

AGAINST = ("torch", "torch.compile")
"""What ours can be held against: the same modules, run eagerly or compiled."""

_MOST_RUNS = 100_000


@dataclass(frozen=True)
class Options:
    """How a bundle is measured.

    only: these components; None is all of them.
    backends: ours; None is all that can run here. precisions: None is what the bundle has, and bfloat16 on OpenVINO.
    threads: of each engine, and of torch.
    warmup: runs of each contender before the timed ones. repeats: timed runs; None: until `seconds` were spent running.
    routes: such as "none" or "dinov2+sam"; None is a choice of them, empty is none at all.
    against: of `AGAINST`; checkpoint: where torch's weights are.
    json, html: files to write.
    """

    only: tuple[str, ...] | None = None
    backends: tuple[str, ...] | None = None
    precisions: tuple[str, ...] | None = None
    threads: int = 1
    warmup: int = 1
    repeats: int | None = None
    seconds: float = 0.5
    routes: tuple[str, ...] | None = None
    against: tuple[str, ...] = ()
    checkpoint: Path | None = None
    json: Path | None = None
    html: Path | None = None

    @property
    def asked_precisions(self) -> tuple[Precision, ...]:
        """Those of `precisions`, in the order of all."""
        return tuple(precision for precision in PRECISIONS if precision in (self.precisions or ()))


def check(options: Options, bundle: Bundle) -> None:
    """See that options make sense, for this bundle and on this machine.

    Raises:
        BenchError: they don't.
        BackendError: `threads` is no number of threads.
    """
    check_threads(options.threads)
    _known("component", options.only or (), tuple(bundle.manifest.components))
    _known("backend", options.backends or (), BACKENDS)
    _known("precision", options.precisions or (), PRECISIONS)
    _known("--against", options.against, AGAINST)
    for backend in options.backends or ():
        if all(lacks := [lacking(backend, precision) for precision in RUNS[backend]]):
            raise BenchError(f"backend {backend} can't run here: {lacks[0]}")
    if options.warmup < 0 or options.warmup > _MOST_RUNS:
        raise BenchError(f"--warmup {options.warmup}: expected 0 to {_MOST_RUNS}")
    if options.repeats is not None and not 1 <= options.repeats <= _MOST_RUNS:
        raise BenchError(f"--repeats {options.repeats}: expected 1 to {_MOST_RUNS}")
    if not (math.isfinite(options.seconds) and options.seconds > 0):
        raise BenchError(f"--seconds {options.seconds}: expected a positive number of seconds")
    if options.checkpoint and not options.against:
        raise BenchError("--checkpoint gives torch its weights: pass --against torch too")
    for option, file in (("--json", options.json), ("--html", options.html)):
        if file and file.is_dir():
            raise BenchError(f"{option} {file}: is a folder")
        if file and not file.absolute().parent.is_dir():
            raise BenchError(f"{option} {file}: its folder does not exist")
        if file:
            check_writable(file)
    if options.json and options.html and options.json.resolve() == options.html.resolve():
        raise BenchError(f"--json and --html are the same file, {options.json}")


def _known(what: str, named: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [name for name in named if name not in known]:
        raise BenchError(f"unknown {what} {', '.join(unknown)}; one of {', '.join(known)}")
    if twice := next((name for name in named if named.count(name) > 1), None):
        raise BenchError(f"{what} {twice} is named twice")
