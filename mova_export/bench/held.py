"""One contender in its process: the steps that `components` asks for, each answered with what was measured."""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import perf_counter
from typing import Any

from mova_export.bench import memory, page_cache
from mova_export.bench.subject import EngineSubject, Subject, difference
from mova_export.bench.torch_origin import Origin
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.manifest import Precision
from mova_runtime.parity.bars import BARS

Answer = dict[str, Any]

_METERED_SECONDS, _METERED_RUNS = 1.0, 3
"""Runs in a row whose energy is read: a meter's steps are tenths of a second."""


class Held:
    """A component in one form, from its first load to its last run."""

    def __init__(
        self,
        bundle: str,
        component: str,
        backend: str,
        precision: Precision,
        threads: int,
        origin: dict[str, Any] | None = None,
    ) -> None:
        """`origin`: where torch's weights are from, for the backends that are torch's."""
        self._bundle, self._component, self._precision = Bundle.open(bundle), component, precision
        self._ours = origin is None
        self._before = memory.Level(0, None)
        self._subject: Subject
        if origin is None:
            self._subject = EngineSubject(self._bundle, component, backend, precision, threads)
        else:
            from mova_export.bench.torch_modules import TorchSubject  # noqa: PLC0415  # a device has no torch

            compiled = backend == "torch.compile"
            self._subject = TorchSubject(self._bundle, component, precision, threads, Origin(**origin), compiled)

    def start(self) -> Answer:
        """Everything before a load; `engine_bytes`: of the files that an engine is made of, null for torch."""
        self._subject.start()
        gc.collect()
        gc.freeze()  # what libraries brought stays, and need not be walked again and again
        size = sum(file.stat().st_size for file in self._subject.files())
        return {"engine_bytes": size if self._ours else None}

    def load(self, cold: bool = False) -> Answer:
        """`seconds`; null for a cold load where files can't be forgotten, and where none are read."""
        files = self._subject.files()
        told = bool(files) and (not cold or page_cache.forget(files))
        self._before = memory.now(self._subject.gpu)
        start = perf_counter()
        self._subject.load()
        seconds = perf_counter() - start
        if not self._ours:  # reading a checkpoint in float32 is no part of running it
            memory.forget_peak()
        return {"seconds": seconds if told else None}

    def first(self) -> Answer:
        """`seconds` of the first run after a load; bytes at the `peak` since before the load, and `loaded` from now on.

        What is mapped is in memory once it was read, so what an engine holds is seen after a run.
        """
        start = perf_counter()
        self._subject.run()
        seconds = perf_counter() - start
        most = memory.peak(self._subject.gpu).beyond(self._before)
        held = memory.now(self._subject.gpu).beyond(self._before)
        found: Answer = {"seconds": seconds, "memory": {"loaded": held.host, "peak": most.host}, "device_memory": None}
        if held.device is not None:
            found["device_memory"] = {"loaded": held.device, "peak": most.device}
        return found

    def judge(self) -> Answer:
        """How far the last run is from what torch computed at export, where it is worst; `passed`: null for torch."""
        found = difference(self._bundle, self._component, self._subject.outputs())
        bar = BARS[self._precision]
        return {
            "cosine": min(one.cosine for one in found),
            "relative_l2": max(one.relative_l2 for one in found),
            "worst_row": max(one.worst_row for one in found),
            "passed": all(bar.passes(one) for one in found) if self._ours else None,
        }

    def run(self, most: int, seconds: float) -> Answer:
        """`times`, the seconds of so many runs in a row; of fewer, but one, where they take longer together."""
        return {"times": self._repeat(lambda times: bool(times) and (len(times) >= most or sum(times) >= seconds))}

    def operations(self) -> Answer:
        """`operations` of a run in floating point, where the contender is torch and can count them; else null."""
        count: Callable[[], int] | None = getattr(self._subject, "operations", None)
        return {"operations": count() if count else None}

    def energy(self) -> Answer:
        """`energy` of a run and clocks meanwhile; null where the machine does not tell."""
        from mova_export.bench.energy import Meter  # noqa: PLC0415  # looks for libraries of GPUs

        meter = Meter.here()
        if meter is None:
            return {"energy": None}
        with meter as told:
            times = self._repeat(lambda times: len(times) >= _METERED_RUNS and sum(times) >= _METERED_SECONDS)
        each = None if told.joules is None else told.joules / len(times)
        return {"energy": {"joules_per_run": each, "watts": told.watts, "clocks": told.clocks}}

    def unload(self) -> Answer:
        """Give back what the load took."""
        self._subject.close()
        return {}

    def _repeat(self, is_done: Callable[[list[float]], bool]) -> list[float]:
        times: list[float] = []
        gc.disable()
        try:
            while not is_done(times):
                start = perf_counter()
                self._subject.run()
                times.append(perf_counter() - start)
        finally:
            gc.enable()
        return times
