"""The sum of what is held, always up to date, against its limits."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from mova_runtime.engines.memory import Limits, Memory
from mova_runtime.engines.pool.holding import Feature, Holding, Leaving, State


class Ledger:
    """Counts engines, features and what is leaving. Knows nothing of who may go."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.used = Memory()
        self.peak = Memory()
        self.engines: set[Holding] = set()
        self.features: dict[Hashable, Feature] = {}  # the least recently used first
        self.features_size = 0
        self.leaving: set[Leaving] = set()

    def count(self) -> Memory:
        """What `used` must be."""
        total = Memory()
        for thing in (*self.engines, *self.features.values()):
            total += thing.charge
        for leaving in self.leaving:
            total += leaving.held
        return total

    def update(self, holding: Holding) -> None:
        """Count an engine as it is now."""
        due = holding.due
        self.used += due - holding.charge
        holding.charge = due
        if holding.state is State.GONE:
            self.engines.discard(holding)
        else:
            self.engines.add(holding)

    def keep(self, feature: Feature) -> None:
        """Count a feature."""
        self.features[feature.key] = feature
        self.features_size += feature.charge.total
        self.used += feature.charge

    @contextmanager
    def change(self, leaving: Leaving) -> Iterator[None]:
        """Take out what is leaving; within, its room can be given to others. Once it is closed, `gone` must be told.

        Until then as much is counted as before, or as after if that is more: who was given the room begins when it is
        closed, and what is left of the room is nobody's so long.
        """
        before = self.used
        for holding in leaving.engines:
            holding.state = State.GONE
            self.update(holding)
        for feature in leaving.features:
            del self.features[feature.key]
            self.features_size -= feature.charge.total
            self.used -= feature.charge
        yield
        if leaving:
            leaving.held = self.limits.cover(before, self.used) - self.used
            self.used += leaving.held
            self.leaving.add(leaving)
        self.peak = self.peak.most(self.used)

    def gone(self, leaving: Leaving) -> None:
        """It was closed."""
        if leaving in self.leaving:
            self.leaving.remove(leaving)
            self.used -= leaving.held
