"""Times contenders side by side, and what their times say: medians, spread, ratios of pairs."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SETTLE_SECONDS = 0.1
"""Between two runs: pools spin after work (ONNX Runtime's for 45 ms) and would take the other's cores."""


@dataclass(frozen=True)
class Contender:
    """One way to compute something. `prepare` is not timed; `run` gets what it returned, and is."""

    run: Callable[[Any], Any]
    prepare: Callable[[], Any] = lambda: None

    def __call__(self) -> Any:
        """Prepare and run."""
        return self.run(self.prepare())


@dataclass(frozen=True)
class Spread:
    """Median, 10th, 90th and 95th percentile of a sample, and its size."""

    median: float
    p10: float
    p90: float
    p95: float
    count: int

    @classmethod
    def of(cls, sample: Sequence[float]) -> Spread:
        """Percentiles interpolate linearly between neighbours.

        Raises:
            ValueError: the sample is empty.
        """
        if not sample:
            raise ValueError("an empty sample has no spread")
        ordered = sorted(sample)
        low, high, highest = (_percentile(ordered, fraction) for fraction in (0.1, 0.9, 0.95))
        return cls(statistics.median(ordered), low, high, highest, len(ordered))


def interleave(
    contenders: Mapping[str, Contender], repeats: int, *, warmup: int = 1, settle: float = SETTLE_SECONDS
) -> dict[str, list[float]]:
    """Run the contenders in turn (A B A B …), so that what else the machine does meets all of them alike.

    Args:
        contenders: by name.
        repeats: timed runs of each.
        warmup: runs of each before, not timed.
        settle: seconds to wait before each timed run.

    Returns:
        Seconds of every timed run by name; the n-th entries were neighbours in time.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(warmup):
        for contender in contenders.values():
            contender()
    gc.collect()
    gc.disable()
    try:
        for _ in range(repeats):
            for name, contender in contenders.items():
                prepared = contender.prepare()
                time.sleep(settle)
                start = time.perf_counter()
                contender.run(prepared)
                times[name].append(time.perf_counter() - start)
    finally:
        gc.enable()
    return times


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """ours/theirs of every pair of neighbours; below 1 is faster.

    Raises:
        ValueError: the samples differ in length.
    """
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def _percentile(ordered: Sequence[float], fraction: float) -> float:
    position = fraction * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
