"""The pool and the feature cache under any events that one thread can bring about, and what holds after each.

With a time-out of 0 a lease that would have to wait is refused, so one thread is enough, and hypothesis finds the
shortest sequence that breaks a rule.
"""

from __future__ import annotations

import contextlib

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from fake_engines import FakeLoader
from mova_runtime.engines.memory import Limits, Memory, Need
from mova_runtime.engines.pool import EnginePool, FeatureCache
from mova_runtime.errors import BackendError, MemoryBudgetError, MovaError, OutOfMemoryError
from mova_runtime.trace import Trace
from seeded_scheduler import Cancelled

NAMES = ("base", "sam", "vary", "llm")
BOUND = 6
DIED, BACKED_OUT = BackendError("died"), KeyError("backed out")

names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)
memory = st.builds(Memory, st.integers(0, 5), st.integers(0, 3))
needs = st.builds(Need, memory, memory, memory)
bounds = st.builds(Limits, st.none() | st.integers(4, 20), st.none() | st.integers(3, 12), st.booleans())


class Lease:
    def __init__(self, pool, chosen, runs, trace):
        self.names, self.runs, self.stack = chosen, runs, contextlib.ExitStack()
        self.engines = self.stack.enter_context(pool.lease_all(chosen, trace, runs))

    def end(self, error=None):
        if error is None:
            return self.stack.close()
        with contextlib.suppress(type(error)), self.stack:
            raise error


class Pool(RuleBasedStateMachine):
    leases = Bundle("leases")

    @initialize(
        sizes=st.fixed_dictionaries(dict.fromkeys(NAMES, needs)),
        guesses=st.dictionaries(st.sampled_from(NAMES), needs, max_size=1),
        seconds=st.fixed_dictionaries(dict.fromkeys(NAMES, st.sampled_from((0.0, 1.0, 9.0)))),
        unknown=st.sets(st.sampled_from(NAMES), max_size=1),
        limits=bounds,
        pinned=st.sets(st.sampled_from(NAMES), max_size=2),
    )
    def open(self, sizes, guesses, seconds, unknown, limits, pinned):
        self.loader = FakeLoader(sizes, guesses, seconds, unknown=unknown)
        self.limits, self.pinned = limits, pinned
        self.pool = EnginePool(NAMES, self.loader, limits, pinned=pinned, timeout=0.0)
        self.cache = FeatureCache(self.pool, BOUND)
        self.ledger = self.pool.shared.room.ledger
        self.held, self.wanted, self.put_so_far = [], [], {}
        self.before = Memory()

    # ---- events

    @rule(target=leases, chosen=names, runs=st.integers(1, 2))
    def lease(self, chosen, runs):
        is_plain = not any(name in self.loader.guesses or self.loader.errors.get(name) for name in chosen)
        total, after = self.takes(chosen, runs), self.pool.totals().used + self.more(chosen, runs)
        may_go = self.may_go(chosen)
        trace = Trace()
        try:
            lease = Lease(self.pool, chosen, runs, trace)
        except MemoryBudgetError as error:
            if is_plain:
                self.check_refused(str(error), total, after, may_go)
            return multiple()
        except (MovaError, Cancelled):
            return multiple()
        assert set(lease.engines) == set(chosen)
        assert all(engine.open for engine in lease.engines.values())
        if is_plain:
            self.check_evicted(may_go, after)
        self.held.append(lease)
        return lease

    @rule(lease=consumes(leases), error=st.sampled_from((None, None, DIED, BACKED_OUT)))
    def release(self, lease, error):
        assert all(engine.open for engine in lease.engines.values()), "closed while leased"
        self.held.remove(lease)
        lease.end(error)
        if error is DIED:
            others = [engine for other in self.held for engine in other.engines.values()]
            for engine in lease.engines.values():
                assert engine.open == (engine in others)
                engine.dead = True

    @rule(chosen=st.sampled_from(NAMES), error=st.sampled_from((BackendError, OutOfMemoryError, Cancelled)))
    def next_load_fails(self, chosen, error):
        self.loader.errors.setdefault(chosen, []).append(error("told to"))

    @rule(chosen=st.sampled_from(NAMES), evict=st.booleans())
    def prefetch(self, chosen, evict):
        was, features, trace = self.idle(), dict(self.ledger.features), Trace()
        with contextlib.suppress(Cancelled):
            assert self.pool.prefetch(chosen, trace, evict=evict) == (chosen in self.pool.loaded)
        gone = self.marks(trace)
        assert not gone or evict
        assert not any(was[name] for name in gone), "pinned or wanted"
        assert self.ledger.features == features

    @rule(chosen=names)
    def want(self, chosen):
        self.pool.want(chosen)
        self.wanted.append(chosen)

    @precondition(lambda self: self.wanted)
    @rule(data=st.data())
    def unwant(self, data):
        chosen = data.draw(st.sampled_from(self.wanted))
        self.wanted.remove(chosen)
        self.pool.unwant(chosen)

    @rule(limits=bounds)
    def resize(self, limits):
        self.limits, self.before = limits, self.pool.totals().used
        self.pool.resize(limits)
        assert limits.hold(self.pool.totals().used) or not self.idle() or self.held

    @rule(key=st.integers(0, 4), size=memory, seconds=st.sampled_from((0.0, 1.0, 99.0)))
    def put(self, key, size, seconds):
        was, trace = self.idle(), Trace()
        self.put_so_far[key] = object()
        self.cache.put(key, self.put_so_far[key], size, seconds, trace=trace)
        assert not any(was[name] for name in self.marks(trace)), "pinned or wanted"

    @rule(key=st.integers(0, 4))
    def get(self, key):
        found = self.cache.get(key)
        assert found is None or found is self.put_so_far[key]

    # ---- what holds after each

    @invariant()
    def the_sum_is_the_sum(self):
        used = Memory()
        users = [engine for lease in self.held for engine in lease.engines.values()]
        for engine in self.loader.engines:
            used += engine.need.resident
        for lease in self.held:
            for engine in lease.engines.values():
                used += engine.need.working * lease.runs
        assert used.total - self.loader.taken.total == sum(
            engine.need.working.total * lease.runs for lease in self.held for engine in lease.engines.values()
        )
        for feature in self.ledger.features.values():
            used += feature.charge
        totals = self.pool.totals()
        assert totals.used == used == self.ledger.count()
        assert {use.name: use.users for use in totals.engines} == {
            engine.name: users.count(engine) for engine in self.loader.engines if not engine.dead
        }

    @invariant()
    def the_limits_hold(self):
        used = self.pool.totals().used
        assert self.limits.excess(used).within(self.limits.excess(self.before)), "it grew beyond them"
        assert self.limits.hold(used) or not any(self.idle().values()) or self.held
        self.before = used

    @invariant()
    def the_cache_is_bounded(self):
        assert self.cache.bytes == sum(one.charge.total for one in self.ledger.features.values()) <= BOUND

    def teardown(self):
        for lease in self.held:
            lease.end()
        self.pool.close()
        assert self.pool.totals().used == self.loader.taken == Memory()
        assert not self.loader.engines
        assert self.cache.bytes == 0

    # ---- a model of the room

    def idle(self):
        """Idle engines with their classes: 0 nobody's, 1 wanted, 2 pinned."""
        wanted = {name for chosen in self.wanted for name in chosen}
        uses = [use for use in self.pool.totals().engines if not use.users]
        return {use.name: 2 if use.pinned else 1 if use.name in wanted else 0 for use in uses}

    def marks(self, trace):
        return [event.name.removeprefix("evict ") for event in trace._events if event.name.startswith("evict ")]

    def takes(self, chosen, runs):
        """What a lease takes in all."""
        total = Memory()
        for name in chosen:
            need = self.loader.needs[name]
            running = need.resident + need.working * runs
            total += running if name in self.pool.loaded else need.peak.most(running)
        return total

    def more(self, chosen, runs):
        """What a lease adds to what is used."""
        here = {use.name: use.need for use in self.pool.totals().engines}
        return self.takes(chosen, runs) - sum((here[name].resident for name in chosen if name in here), Memory())

    def may_go(self, chosen):
        """Classes and charges of what may go for a lease."""
        engines = {use.name: use.need.resident for use in self.pool.totals().engines}
        going = {name: (group, engines[name]) for name, group in self.idle().items() if name not in chosen}
        return going | {key: (0, feature.charge) for key, feature in self.ledger.features.items()}

    def check_refused(self, told, total, after, may_go):
        """What fits alone could only have waited, and only because all that may go is not enough."""
        assert ("waited" in told) == self.limits.hold(total)
        left = after - sum((charge for _, charge in may_go.values()), Memory())
        assert "waited" not in told or not self.limits.hold(left), "there was room"

    def check_evicted(self, may_go, after):
        """All that went had to, and a later class only because the earlier ones together were not enough."""
        here = {*self.pool.loaded, *self.ledger.features}
        gone = {key: went for key, went in may_go.items() if key not in here}
        left = after - sum((charge for _, charge in gone.values()), Memory())
        assert self.limits.hold(left)
        for key, (group, charge) in gone.items():
            assert not self.limits.hold(left + charge), f"{key} went needlessly"
            lower = [charge for other, charge in may_go.values() if other < group]
            assert group == 0 or not self.limits.hold(after - sum(lower, Memory())), f"{key} went too early"


TestPool = Pool.TestCase
TestPool.settings = settings(
    max_examples=300,
    stateful_step_count=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
