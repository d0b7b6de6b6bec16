"""How far TensorRT is with an engine, and the way to stop it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class _Phase:
    name: str
    steps: int
    done: int = 0


class Progress:
    """TensorRT's nested phases as one fraction from 0 to 1. Every step asks whether to go on."""

    def __init__(self, tell: Callable[[float], None], stop: Callable[[], bool]) -> None:
        self._tell = tell
        self._stop = stop
        self._phases: list[_Phase] = []
        self.failure: OSError | None = None
        """What telling ran into, such as a pipe that nobody reads any more."""

    def start(self, name: str, steps: int) -> None:
        """A phase within the last one begins."""
        self._phases.append(_Phase(name, max(steps, 1)))

    def step(self, name: str) -> bool:
        """A step of a phase is done; whether to go on."""
        for phase in self._phases:
            if phase.name == name:
                phase.done += 1
        try:
            self._tell(self.fraction)
        except OSError as error:  # it may not cross the C++ code that calls this
            self.failure = error
        return not self.failure and not self._stop()

    def finish(self, name: str) -> None:
        """A phase is done, and those within it."""
        names = [phase.name for phase in self._phases]
        if name in names:
            del self._phases[names.index(name) :]

    @property
    def fraction(self) -> float:
        """Of the whole that is done: a phase fills one step of the phase it is within."""
        within = 0.0
        for phase in reversed(self._phases):
            within = min((phase.done + within) / phase.steps, 1.0)
        return within


def monitor(library: Any, progress: Progress) -> Any:
    """A TensorRT progress monitor."""

    class Monitor(library.IProgressMonitor):  # type: ignore[misc]  # the library is loaded at run time
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()
