"""The pool and the feature cache under thousands of interleavings of threads, each given by a seed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fake_engines import FakeEngine, FakeLoader
from mova_runtime.engines.memory import Limits, Memory, Need
from mova_runtime.engines.pool import EnginePool, FeatureCache, admission, guard
from mova_runtime.engines.pool.holding import State
from mova_runtime.engines.pool.room import PINNED
from mova_runtime.errors import BackendError, MovaError, OutOfMemoryError
from mova_runtime.trace import Trace
from seeded_scheduler import Cancelled, Condition, Scheduler

SEEDS = 2400
CHUNK = 100
NAMES = ("base", "text", "sam", "vary", "dinov2", "llm")


class Case:
    """Threads that do what a seed says to one pool, and what must hold whenever one of them lets go of the lock."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scheduler = scheduler = Scheduler(seed, cancels=0.01 if seed % 3 == 0 else 0.0)
        monkeypatch.setattr(guard, "threading", SimpleNamespace(Condition=lambda: Condition(scheduler)))
        monkeypatch.setattr(admission, "time", scheduler)
        self.random = random = scheduler.random
        self.has_device = seed % 4 == 1
        self.is_shared = seed % 8 == 5
        self.resizes = seed % 2 == 0
        self.underestimates = seed % 5 == 0
        needs = {name: self.need() for name in NAMES}
        guesses = {name: self.need() for name in NAMES if self.underestimates and random.random() < 0.5}
        self.loader = FakeLoader(
            needs,
            guesses,
            {name: random.choice((0.1, 1.0, 3.0)) for name in NAMES},
            {name: [self.error() for _ in range(random.randrange(3))] for name in NAMES if random.random() < 0.3},
            {name for name in NAMES if random.random() < 0.2},
            pause=self.pause,
            grown=self.check_memory,
            close_error=RuntimeError("can't close") if seed % 7 == 0 else None,
        )
        pinned = [name for name in NAMES if random.random() < 0.3]
        timeout = random.choice((None, None, 0.0, 5.0, 50.0))
        self.pool = EnginePool(NAMES, self.loader, self.limits(), pinned=pinned, timeout=timeout)
        self.bound = random.choice((0, 3, 6))
        self.cache = FeatureCache(self.pool, self.bound)
        self.room, self.ledger = self.pool.shared.room, self.pool.shared.room.ledger
        self.line: list[list] = []
        self.last_used = Memory()
        self.leases = 0
        scheduler.on_release = self.check_ledger
        self.watch_line()

    def need(self) -> Need:
        random = self.random
        amount = lambda most: Memory(random.randrange(most), random.randrange(most) if self.has_device else 0)  # noqa: E731
        return Need(amount(6), amount(3), amount(9))

    def limits(self) -> Limits:
        random = self.random
        if self.is_shared:
            return Limits(random.randrange(8, 30), shared=True)
        return Limits(random.randrange(5, 20), random.randrange(5, 20) if self.has_device else None)

    def error(self) -> BaseException:
        return self.random.choice((BackendError, BackendError, OutOfMemoryError, Cancelled))("told to")

    def pause(self, where: str) -> None:
        self.scheduler.switch()
        if where.startswith("load"):
            self.scheduler.maybe_cancel()

    # ---- what always holds

    def check_memory(self) -> None:
        """What is really there is in the ledger, and with limits that nobody changed, within them."""
        if self.underestimates:
            return
        limits = self.ledger.limits
        there = self.loader.taken
        if not self.ledger.leaving:  # what goes for a feature is closed when the feature is there already
            for feature in self.ledger.features.values():
                there += feature.charge
        assert limits.cover(there, self.ledger.used) == limits.cover(self.ledger.used, Memory()), (
            there,
            self.ledger.used,
        )
        if not self.resizes:
            assert limits.hold(there), f"{there} of {limits}"

    def check_ledger(self) -> None:
        self.check_nobody_oversleeps()
        limits, used = self.ledger.limits, self.ledger.used
        assert used == self.ledger.count(), "the sum is not the sum"
        assert limits.excess(used).within(limits.excess(self.last_used)), (
            f"grew from {self.last_used} to {used} of {limits}"
        )
        assert self.ledger.features_size == sum(one.charge.total for one in self.ledger.features.values())
        assert self.ledger.features_size <= self.bound
        for name, holding in self.room.engines.items():
            assert holding.name == name
            assert holding.state in (State.RESERVED, State.LOADING, State.LOADED)
            assert holding in self.ledger.engines
            assert (holding.engine is not None) == (holding.state is State.LOADED)
        for holding in self.ledger.engines:
            assert holding.users or holding.name in self.room.engines, "nobody's, and nobody can get it"
            assert holding.users or not holding.runs
        self.last_used = used
        going = [held.engine for one in self.ledger.leaving for held in one.engines]
        going += [held.engine for held in self.ledger.engines if held.state is State.DYING]
        closing = {held.name for one in self.ledger.leaving for held in one.engines}  # they have no engine any more
        going += [engine for engine in self.loader.engines if engine.closing and engine.name in closing]
        staying = [engine.name for engine in self.loader.engines if engine not in going]
        assert len(staying) == len(set(staying)), f"one is there twice: {staying}"

    def check_nobody_oversleeps(self) -> None:
        """Whoever is the head of the line and could be served, or refused, has been told."""
        if not self.line:
            return
        worker, names, runs = self.line[0][1]
        if self.pool.shared.changed._condition.is_waiting(worker):
            assert not self.pool.shared.closed, "was not told that the pool was closed"
            can_be_had = self.ledger.limits.hold(self.room.takes(names, runs))
            assert can_be_had or self.ledger.leaving, (
                f"{names} can't be had, and was not told"
            )  # it is, once that is closed
            assert self.room._plan(names, runs, lambda: self.room.idle(PINNED, names)) is None, f"{names} overslept"

    def watch_line(self) -> None:
        """Keep a line of our own, in the order of tickets: only its first may be served."""
        line, ours = self.pool.shared.line, self.line
        tries, join, leave = self.pool._admission._try, line.join, line.leave

        def joined(ticket):
            ours.append([ticket, (self.scheduler.current, [], 0)])
            ours.sort(key=lambda one: one[0].number)
            return join(ticket)

        def left(ticket):
            ours.remove(next(one for one in ours if one[0] is ticket))
            return leave(ticket)

        def tried(ticket, names, runs):
            next(one for one in ours if one[0] is ticket)[1] = self.scheduler.current, names, runs
            claim = tries(ticket, names, runs)
            assert claim is None or ours[0][0] is ticket, "served before its turn"
            return claim

        line.join, line.leave, self.pool._admission._try = joined, left, tried

    # ---- what threads do

    def thread(self) -> None:
        steps = [self.use, self.use, self.use, self.prefetch, self.feature, self.announce, self.look]
        if self.resizes:
            steps.append(self.resize)
        for _ in range(self.random.randrange(2, 6)):
            try:
                self.random.choice(steps)()
            except (MovaError, Cancelled):
                self.scheduler.switch()

    def names(self) -> list[str]:
        return self.random.sample(NAMES, self.random.choice((1, 1, 2, 3)))

    def use(self) -> None:
        names, runs, engines = self.names(), self.random.choice((1, 1, 2)), {}
        try:
            self.hold(names, runs, engines)
        except BackendError:
            for engine in engines.values():
                engine.dead = True
            raise

    def hold(self, names: list[str], runs: int, engines: dict[str, FakeEngine]) -> None:
        died = [engine for engine in self.loader.engines if engine.dead]
        with self.pool.lease_all(names, Trace(), runs) as leased:
            engines.update(leased)
            assert set(engines) == set(names)
            assert all(engine not in died for engine in engines.values()), "handed out after it died"
            self.leases += 1
            working = Memory()
            for engine in engines.values():
                working += engine.need.working * runs
            self.loader.take(working)
            try:
                for _ in range(self.random.randrange(4)):
                    self.scheduler.switch()
                    assert all(engine.open for engine in engines.values()), "closed while leased"
                outcome = self.random.random()
                if outcome < 0.1:
                    raise BackendError("died")
                if outcome < 0.2:
                    raise Cancelled
            finally:
                self.loader.take(Memory() - working)

    def prefetch(self) -> None:
        self.pool.prefetch(self.random.choice(NAMES), Trace(), evict=self.random.random() < 0.7)

    def feature(self) -> None:
        key = self.random.randrange(4)
        if self.random.random() < 0.5:
            found = self.cache.get(key)
            assert found is None or found[0] == key
        elif self.random.random() < 0.95:
            size = Memory(self.random.randrange(4), self.random.randrange(2) if self.has_device else 0)
            self.cache.put(key, (key, size), size, self.random.choice((0.1, 1.0, 10.0)), trace=Trace())
        else:
            self.cache.clear()

    def announce(self) -> None:
        names = self.names()
        self.pool.want(names)
        try:
            self.use()
        finally:
            self.pool.unwant(names)

    def look(self) -> None:
        assert len(self.pool.totals().engines) <= len(NAMES)
        assert set(self.pool.loaded) <= set(NAMES)

    def resize(self) -> None:
        self.last_used = self.ledger.used
        self.pool.resize(self.limits())

    # ---- and what is left

    def run(self) -> None:
        closes = self.scheduler.random.random() < 0.1
        for _ in range(self.random.randrange(2, 5)):
            self.scheduler.spawn(self.thread)
        if closes:
            self.scheduler.spawn(self.pool.close)
        self.scheduler.run()
        pool = self.pool
        assert pool.totals().leases == self.leases
        assert not pool.shared.line
        assert not self.ledger.leaving
        assert pool.shared.activity._loads == pool.shared.activity._others == 0
        assert not any(holding.users or holding.runs for holding in self.ledger.engines)
        assert set(pool.loaded) == {holding.name for holding in self.ledger.engines}
        assert self.ledger.limits.hold(self.ledger.used), "idle, and beyond the limits"
        assert self.loader.taken == sum((engine.need.resident for engine in self.loader.engines), Memory())
        assert len(self.loader.engines) == len(pool.loaded)
        pool.close()
        assert pool.totals().used == self.loader.taken == Memory()
        assert self.cache.bytes == 0
        assert pool.loaded == ()
        assert not self.loader.engines


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_whatever_the_interleaving(first, monkeypatch):
    for seed in range(first, first + CHUNK):
        try:
            Case(seed, monkeypatch).run()
        except BaseException:
            print(f"seed {seed}")
            raise
