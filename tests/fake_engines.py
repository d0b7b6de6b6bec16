"""Engines that hold nothing, and a loader of them that counts what they would hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mova_runtime.engines.memory import Memory, Need
from mova_runtime.errors import BundleError


@dataclass(frozen=True)
class FakeLoaded:
    """What `Loader.load` returns."""

    engine: FakeEngine
    need: Need
    seconds: float


@dataclass(eq=False)
class FakeEngine:
    name: str
    need: Need
    loader: FakeLoader
    open: bool = True
    closing: bool = False
    dead: bool = False
    close_error: BaseException | None = None

    def close(self):
        self.closing = True
        self.loader.pause(f"close {self.name}")
        assert self.open, f"{self.name} was closed twice"
        self.open = False
        self.loader.take(Memory() - self.need.resident)
        self.loader.engines.remove(self)
        if self.close_error:
            raise self.close_error


def nothing(_):
    """Neither waits nor fails."""


@dataclass(eq=False)
class FakeLoader:
    """needs: what engines take, by name; guesses: what the loader says before, where that differs.

    errors: by name what their next loads raise, first the first; pause: called in the middle of loads and closings.
    """

    needs: dict[str, Need]
    guesses: dict[str, Need] = field(default_factory=dict)
    seconds_of: dict[str, float] = field(default_factory=dict)
    errors: dict[str, list[BaseException]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    pause: Callable[[str], None] = nothing
    grown: Callable[[], None] = lambda: None
    close_error: BaseException | None = None
    loads: list[str] = field(default_factory=list)
    finals: list[bool] = field(default_factory=list)
    loading: set[str] = field(default_factory=set)
    engines: list[FakeEngine] = field(default_factory=list)
    taken: Memory = field(default_factory=Memory)
    alone: list[tuple[int | None, int | None]] = field(default_factory=list)

    def need(self, component):
        if component not in self.needs:
            raise BundleError(f"no {component}")
        return self.guesses.get(component, self.needs[component])

    def seconds(self, component):
        return self.seconds_of.get(component, 1.0)

    def is_known(self, component):
        return component not in self.unknown

    def take(self, memory):
        """Physical memory: of open engines, of loads going on, of runs."""
        self.taken += memory
        self.grown()

    def load(self, component, trace, alone=lambda: None, *, final=False):
        need = self.needs[component]
        assert component not in self.loading, f"{component} is being loaded twice"
        self.loading.add(component)
        self.loads.append(component)
        self.finals.append(final)
        with trace.stage(f"load {component}"):
            try:
                before = alone()
                self.take(need.peak)
                try:
                    self.pause(f"load {component}")
                    if self.errors.get(component):
                        raise self.errors[component].pop(0)
                except BaseException:
                    self.take(Memory() - need.peak)
                    raise
                self.take(need.resident - need.peak)
                self.alone.append((before, alone()))
                self.guesses.pop(component, None)
                engine = FakeEngine(component, need, self, close_error=self.close_error)
                self.engines.append(engine)
                return FakeLoaded(engine, need, self.seconds(component))
            finally:
                self.loading.remove(component)
