"""What holds memory: engines and features, claims to engines, and what is leaving."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum, auto

from mova_runtime.engines.memory import Memory, Need
from mova_runtime.engines.protocol import Engine
from mova_runtime.errors import MovaError

NONE = Memory()


class State(Enum):
    """Where an engine is on its way."""

    RESERVED = auto()  # there is room for it, and nobody loads it
    LOADING = auto()
    LOADED = auto()
    DYING = auto()  # it failed: those who have it may end, nobody gets it any more
    GONE = auto()  # out of the ledger


@dataclass(eq=False)
class Evictable:
    """What may be evicted, with what getting it back costs.

    charge: what the ledger counts for it; seconds: to load or compute it; priority, turn: its place in the order of
    eviction, the lowest first.
    """

    charge: Memory
    seconds: float
    priority: float = field(default=0.0, init=False)
    turn: int = field(default=0, init=False)


@dataclass(eq=False)
class Feature(Evictable):
    """A cached feature; its charge is its size. name: what a trace calls it."""

    key: Hashable
    value: object
    name: str


@dataclass(eq=False)
class Holding(Evictable):
    """An engine that is loaded, or that there is room for.

    users: leases that have it; runs: how many runs at once these may do in all; error: why its load failed.
    """

    name: str
    need: Need
    state: State = State.LOADING
    users: int = 0
    runs: int = 0
    engine: Engine | None = None
    error: MovaError | None = None

    @property
    def due(self) -> Memory:
        """What the ledger should count."""
        return NONE if self.state is State.GONE else self.due_for(self.runs)

    def due_for(self, runs: int) -> Memory:
        """The same with so many runs at once. Nobody runs an engine before it is loaded, so not both are added up."""
        running = self.need.resident + self.need.working * runs
        return self.need.peak.most(running) if self.state in (State.RESERVED, State.LOADING) else running


@dataclass(eq=False)
class Leaving:
    """Out of the ledger, and not closed yet: its memory is still taken.

    held: what the ledger counts for it beside what was given to others already; evicted: it went to make room.
    """

    engines: list[Holding]
    features: list[Feature]
    held: Memory = NONE
    evicted: bool = True

    def __bool__(self) -> bool:
        return bool(self.engines or self.features)


@dataclass(eq=False)
class Claim:
    """A lease's part in the ledger: its engines, with the room for all of them.

    own: those it has to load itself, in order; leaving: what has to be closed before; running: all are loaded and
    handed out.
    """

    holdings: list[Holding]
    runs: int
    own: list[Holding]
    leaving: Leaving
    running: bool = False

    @property
    def engines(self) -> dict[str, Engine]:
        """Its engines by name, once they are loaded."""
        return {holding.name: holding.engine for holding in self.holdings if holding.engine is not None}
