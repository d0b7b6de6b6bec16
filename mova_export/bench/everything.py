"""What all components take at once, and what a request with one expert takes of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from mova_export.bench.figures import Measured
from mova_export.bench.groups import room
from mova_export.bench.needs import together
from mova_export.bench.process import Worker
from mova_export.bench.routes import Served
from mova_runtime.bundle import Bundle


def measure(
    bundle: Bundle,
    by: Served,
    measured: Mapping[str, Measured],
    found: Sequence[Mapping[str, Any]],
    threads: int,
) -> dict[str, Any]:
    """Every component loaded at once in one process, and each run.

    Args:
        bundle: of the components.
        by: what serves them.
        measured: what each takes alone. Where that is more than there is room for, the sum of what they hold, and of
            the run that takes most, stands for the peak, and `measured` is false.
        found: the routes' results, of which those with one expert count.
        threads: of each engine.

    Raises:
        WorkerError: it failed.
    """
    needed = together(measured, bundle.manifest.components, by)
    fits = needed <= room()
    engines = [(name, by.by(name).backend, by.by(name).precision) for name in bundle.manifest.components]
    with Worker() as worker:
        # Without engines: what a process takes before it has any.
        asked = engines if fits else []
        peak = worker.ask("everything", bundle=str(bundle.root.absolute()), engines=asked, threads=threads)["peak"]
    peak += 0 if fits else needed
    singles = [route["memory"]["peak"] for route in found if route["kind"] == "single" and route["memory"]]
    one = mean(singles) if singles else None
    return {
        "memory": {"peak": peak},
        "measured": fits,
        "one_expert_mean": None if one is None else int(one),
        "one_expert_share": None if one is None else one / peak,
    }
