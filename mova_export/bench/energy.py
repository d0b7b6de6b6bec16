"""What runs cost in energy, where the device tells: an NVIDIA GPU by its driver, a Jetson by its sensors.

It was tried on stand-ins of both, and has met neither yet.
"""

from __future__ import annotations

import threading
from itertools import pairwise
from statistics import median
from time import perf_counter
from types import TracebackType

from mova_export.bench.power import Source
from mova_export.bench.power.jetson import jetson_source
from mova_export.bench.power.nvidia import nvidia_source

SECONDS = 0.02
"""Between two samples."""


class Meter:
    """Measures what happens inside it; it may be entered again, and begins anew.

        meter = Meter.here()
        with meter:
            for _ in range(runs):
                engine.run(inputs)
        joules = meter.joules / runs

    A device's counter is taken where it has one, else power is sampled from a thread and summed up. Counters and
    sensors move on only every 20 to 100 ms: let what is measured take a second or more.
    """

    def __init__(self, source: Source, seconds: float = SECONDS) -> None:
        """`seconds` between two samples of power and clocks."""
        self._source = source
        self._every = seconds
        self.joules: float | None = None
        """Of all that happened inside; None where the device did not tell, or stopped telling."""
        self.seconds = 0.0
        self.watts: float | None = None
        """On average."""
        self.clocks: dict[str, float] = {}
        """Megahertz by what runs at it, the median of the samples."""

    @classmethod
    def here(cls) -> Meter | None:
        """Of the device that CUDA takes first, or the module that this is; None where neither tells."""
        source: Source | None = nvidia_source() or jetson_source()
        return cls(source) if source else None

    def __enter__(self) -> Meter:
        self.joules = self.watts = None
        self._power: list[tuple[float, float]] = []
        self._seen: dict[str, list[float]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="energy", daemon=True)
        self._begin, self._counted = perf_counter(), self._source.joules()
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end = self._source.joules()
        self.seconds = perf_counter() - self._begin
        self._over.set()
        self._thread.join()
        self._look()
        if end is not None and self._counted is not None:
            self.joules = end - self._counted
        elif self._counted is None and len(self._power) > 1:
            self.joules = _mean(self._power) * self.seconds
        if self.joules is not None and self.seconds > 0:
            self.watts = self.joules / self.seconds
        self.clocks = {name: median(values) for name, values in self._seen.items()}

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            self._look()

    def _look(self) -> None:
        if self._counted is None and (watts := self._source.watts()) is not None:
            self._power.append((perf_counter(), watts))
        for name, megahertz in self._source.clocks().items():
            self._seen.setdefault(name, []).append(megahertz)


def _mean(samples: list[tuple[float, float]]) -> float:
    """Watts on average of (seconds, watts), as if they rose and fell evenly from each sample to the next."""
    area = sum((later - earlier) * (left + right) / 2 for (earlier, left), (later, right) in pairwise(samples))
    span = samples[-1][0] - samples[0][0]
    return area / span if span > 0 else samples[-1][1]
