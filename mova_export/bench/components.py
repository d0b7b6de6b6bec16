"""One component: each contender alone in a process of its own, then all of them in turn."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mova_export.bench.candidates import Candidate, reference
from mova_export.bench.figures import Figures, Measured
from mova_export.bench.groups import groups, room
from mova_export.bench.process import PATIENCE, Worker
from mova_export.bench.torch_origin import Origin
from mova_export.bench.turns import Budget, Run, take_turns
from mova_export.errors import WorkerError
from mova_runtime.bundle import Bundle

_WAIT = 60.0
_TIMES_SLOWER = 20
"""A run that takes so many times as long as the first, and a minute more, is not going to end."""


@dataclass(frozen=True)
class Setting:
    """What all components are measured with.

    origin: of torch's weights; start: starts a process that measures.
    """

    bundle: Bundle
    threads: int
    warmup: int
    budget: Budget
    origin: Origin | None = None
    start: Callable[[], Worker] = Worker


def measure(setting: Setting, name: str, candidates: Sequence[Candidate]) -> Measured:
    """Everything about a component. What goes wrong with a contender is in its `error`, and costs no other.

    The processes start together, before anything is timed; while one works the others wait.
    """
    component = setting.bundle.component(name)
    found = Measured(name, component.parameters, component.operations, {one.label: Figures(one) for one in candidates})
    with contextlib.ExitStack() as stack:
        bench = _Bench(setting, found, {one.label: stack.enter_context(setting.start()) for one in candidates})
        bench.open()
        for label in found.contenders:
            bench.alone(label)
        bench.together(reference(tuple(candidates)))
    return found


class _Bench:
    """The processes of a component's contenders."""

    def __init__(self, setting: Setting, found: Measured, workers: Mapping[str, Worker]) -> None:
        self._setting = setting
        self._found = found
        self._workers = workers

    def open(self) -> None:
        """Start every library."""
        origin = asdict(self._setting.origin) if self._setting.origin else None
        for label, figures in self._found.contenders.items():
            self._workers[label].send(
                "open",
                bundle=str(Path(self._setting.bundle.root).absolute()),
                component=self._found.name,
                backend=figures.candidate.backend,
                precision=figures.candidate.precision,
                threads=self._setting.threads,
                origin=None if figures.candidate.ours else origin,
            )
        for label, figures in self._found.contenders.items():
            with self._noted(label):
                figures.engine_bytes = self._workers[label].receive()["engine_bytes"]

    def alone(self, label: str) -> None:
        """Load cold, run once, judge; nobody else is loaded. Torch in the bundle's float32 counts operations."""
        figures, ask = self._found.contenders[label], self._workers[label].ask
        if figures.error:
            return
        with self._noted(label):
            figures.load_cold = ask("load", cold=True)["seconds"]
            first = ask("first")
            figures.first_run = first["seconds"]
            figures.memory, figures.device_memory = first["memory"], first["device_memory"]
            figures.parity = ask("judge")
            if not figures.is_right:
                figures.error = _complaint(figures.parity)
            if self._found.operations is None:
                self._found.operations = ask("operations")["operations"]
            ask("unload")

    def together(self, beside: Candidate | None) -> None:
        """Load again, warm, in groups that fit into memory; run in turn."""
        peaks = {label: figures.peak for label, figures in self._found.contenders.items() if not figures.error}
        for number, group in enumerate(groups(peaks, beside.label if beside else None, room())):
            self._in_turn(number, group)

    def _in_turn(self, number: int, group: Sequence[str]) -> None:
        ready = [label for label in group if self._load_again(label, number)]
        theirs = [label for label in ready if not self._found.contenders[label].candidate.ours]
        ours = [label for label in ready if self._found.contenders[label].candidate.ours]
        found = take_turns(
            {label: self._runner(label) for label in ready},
            self._setting.budget,
            [(mine, other) for mine in ours for other in theirs],
            self._note,
        )
        for label, times in found.times.items():
            self._found.contenders[label].times += times
        for pair, sample in found.ratios.items():
            self._found.ratios.setdefault(pair, []).extend(sample)
        for label in ready:
            if not self._found.contenders[label].error:
                with self._noted(label):
                    self._found.contenders[label].energy = self._ask_run(label, "energy")["energy"]
                    self._workers[label].ask("unload")

    def _load_again(self, label: str, number: int) -> bool:
        """Load warm and warm up; whether that went well. A contender that is in every group is loaded for each."""
        figures, worker = self._found.contenders[label], self._workers[label]
        if figures.error:
            return False
        with self._noted(label):
            loaded = worker.ask("load")
            if figures.group is None:
                figures.group, figures.load_warm = number, loaded["seconds"]
            # A module that is compiled when it first runs is not timed compiling.
            for _ in range(max(self._setting.warmup, figures.candidate.backend == "torch.compile")):
                worker.ask("run", most=1, seconds=0.0)
        return figures.error is None

    def _runner(self, label: str) -> Run:
        def run(most: int, seconds: float) -> list[float]:
            times: list[float] = self._ask_run(label, "run", most=most, seconds=seconds)["times"]
            return times

        return run

    def _ask_run(self, label: str, do: str, **asked: Any) -> dict[str, Any]:
        once = self._found.contenders[label].first_run or 0.0
        patience = min(PATIENCE, _WAIT + _TIMES_SLOWER * once)
        return self._workers[label].ask(do, patience=patience, **asked)

    @contextlib.contextmanager
    def _noted(self, label: str) -> Any:
        try:
            yield
        except WorkerError as error:
            self._note(label, error)

    def _note(self, label: str, error: WorkerError) -> None:
        self._found.contenders[label].error = str(error)


def _complaint(parity: Mapping[str, Any]) -> str:
    return (
        f"not what torch computed: cosine {parity['cosine']:.6f}, relative L2 {parity['relative_l2']:.1e}, "
        f"of a row {parity['worst_row']:.1e}"
    )
