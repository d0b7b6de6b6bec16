"""Who has which engine, and who goes when another is needed. Nothing here waits or knows of threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

from mova_runtime.engines.memory import Limits, Memory, Need
from mova_runtime.engines.pool.eviction import GreedyDual, choose
from mova_runtime.engines.pool.holding import Claim, Evictable, Feature, Holding, Leaving, State
from mova_runtime.engines.pool.ledger import Ledger
from mova_runtime.engines.protocol import Engine
from mova_runtime.errors import MovaError

NOBODYS, WANTED, PINNED = range(3)
"""Classes of what may be evicted; a later one goes only when the earlier ones were not enough."""


class Room:
    """The engines of a pool.

    What a method returns as `Leaving` is to be closed, and then handed to `ledger.gone`.
    """

    def __init__(self, limits: Limits, pinned: Collection[str] = ()) -> None:
        self.ledger = Ledger(limits)
        self.order = GreedyDual()
        self.pinned = frozenset(pinned)
        self.engines: dict[str, Holding] = {}
        """Those that a lease would get."""
        self._known: dict[str, tuple[Need, float]] = {}
        self._wanted = Counter[str]()

    def knows(self, name: str) -> bool:
        """Whether it was told what an engine needs."""
        return name in self._known

    def learn(self, name: str, need: Need, seconds: float) -> None:
        """What an engine needs, and how long it takes to load."""
        self._known[name] = need, seconds

    def is_wanted(self, name: str) -> bool:
        """Whether an engine was announced."""
        return self._wanted[name] > 0

    def takes(self, names: Iterable[str], runs: int) -> Memory:
        """What a claim to these takes with everything else gone; of what is being loaded, once it is."""
        total = Memory()
        for name in names:
            holding = self.engines.get(name)
            if holding and holding.state is State.LOADING:
                total += holding.need.resident + holding.need.working * runs
            else:
                total += (holding or self._new(name)).due_for(runs)
        return total

    def claim(self, names: Sequence[str], runs: int) -> Claim | None:
        """All of these, or None where there is no room for them now. A pinned engine goes where nothing else helps."""
        going = self._plan(names, runs, lambda: self.idle(PINNED, names))
        return None if going is None else self._grant(names, 1, runs, going)

    def reserve(self, name: str, *, evict: bool, before: Collection[str] = ()) -> Claim | None:
        """Room to load an engine that nobody leases yet, if there is also room for those that come `before` it.

        With `evict` engines go for it that nobody has announced.
        """
        sooner = Memory()
        for other in before:
            holding = self.engines.get(other) or self._new(other)
            sooner += holding.due_for(max(holding.runs, 1)) - holding.charge
        going = self._plan([name], 0, lambda: _engines(self.idle(NOBODYS, before)) if evict else [], sooner)
        return None if going is None else self._grant([name], 0, 0, going)

    def take(self, holding: Holding) -> None:
        """An engine that there is room for and that nobody loads is going to be loaded."""
        holding.state = State.LOADING

    def give_up(self, holding: Holding) -> None:
        """It is not loaded after all; another who waits for it may do it."""
        holding.state = State.RESERVED
        self._drop_if_nobodys(holding)

    def loaded(self, holding: Holding, engine: Engine, need: Need, seconds: float) -> Leaving | None:
        """It is loaded, and really takes `need`; None if there is no room for that, and it is to be withdrawn."""
        self.learn(holding.name, need, seconds)
        holding.engine, holding.need, holding.seconds, holding.state = engine, need, seconds, State.LOADED
        limits, before = self.ledger.limits, self.ledger.used
        after = before - holding.charge + holding.due
        going: Sequence[Evictable] = ()
        if not limits.excess(after).within(limits.excess(before)):  # limits lowered meanwhile are no reason
            idle = self.idle(PINNED if holding.users else NOBODYS, (holding.name,))
            going, after = choose(idle if holding.users else _engines(idle), after, limits)
            if not limits.hold(after):
                return None
        self.order.evicted(going)
        self.order.touch(holding, need.resident)
        leaving = self._out(going)
        with self.ledger.change(leaving):
            self.ledger.update(holding)
        return leaving

    def withdraw(self, holding: Holding, error: MovaError) -> Leaving:
        """It can't be had: it was not loaded, or there is no room for it. `error` is for all who wait for it."""
        holding.error = error
        del self.engines[holding.name]
        leaving = Leaving([holding] if holding.engine else [], [], evicted=False)
        with self.ledger.change(leaving):
            holding.state = State.GONE
            self.ledger.update(holding)
        return leaving

    def release(self, claim: Claim, *, failed: bool = False) -> Leaving:
        """A claim ends. After a failure nobody is handed its engines any more; each goes when nobody has it."""
        ended = []
        for holding in claim.holdings:
            holding.users -= 1
            holding.runs -= claim.runs
            if failed and holding.state is State.LOADED:
                holding.state = State.DYING
                del self.engines[holding.name]
            self.ledger.update(holding)
            if holding.state is State.LOADED:
                self.order.touch(holding, holding.need.resident)
            elif holding.state is State.DYING and not holding.users:
                ended.append(holding)
            else:
                self._drop_if_nobodys(holding)
        leaving = Leaving(ended, [], evicted=False)
        with self.ledger.change(leaving):
            return leaving

    def want(self, names: Iterable[str]) -> None:
        """Somebody is going to need these."""
        self._wanted.update(names)

    def unwant(self, names: Iterable[str]) -> None:
        """Takes one `want` of each back."""
        self._wanted.subtract(names)
        assert all(count >= 0 for count in self._wanted.values())

    def settle(self) -> Leaving:
        """Let go what the limits have no room for any more."""
        if self.ledger.limits.hold(self.ledger.used):
            return Leaving([], [])
        going, _ = choose(self.idle(PINNED), self.ledger.used, self.ledger.limits)
        self.order.evicted(going)
        return self.let_go(going)

    def unwanted(self) -> list[Evictable]:
        """All that nobody has and nobody has announced, pinned or not."""
        return [t for t in self.idle(PINNED) if isinstance(t, Feature) or not self._wanted[t.name]]

    def let_go(self, going: Sequence[Evictable], keep: Feature | None = None) -> Leaving:
        """Evict these, and keep a feature in their place."""
        leaving = self._out(going)
        with self.ledger.change(leaving):
            if keep:
                self.ledger.keep(keep)
        return leaving

    def idle(self, last: int, but: Collection[str] = ()) -> list[Holding | Feature]:
        """What nobody has, up to a class, in the order in which it may go."""
        ranked: list[tuple[int, Holding | Feature]] = [(NOBODYS, feature) for feature in self.ledger.features.values()]
        for holding in self.engines.values():
            if holding.state is State.LOADED and not holding.users and holding.name not in but:
                ranked.append((self._class(holding.name), holding))
        ranked = [pair for pair in ranked if pair[0] <= last]
        ranked.sort(key=lambda pair: (pair[0], pair[1].priority, pair[1].turn))
        return [thing for _, thing in ranked]

    def busy(self, but: Holding | None = None) -> tuple[Memory, tuple[str, ...]]:
        """What can't be evicted now, because it is leased or being loaded."""
        held = self.ledger.engines - {but}
        busy = [one for one in held if one.users or one.state is not State.LOADED]
        return sum((one.charge for one in busy), Memory()), tuple(sorted({one.name for one in busy}))

    def _new(self, name: str) -> Holding:
        need, seconds = self._known[name]
        return Holding(Memory(), seconds, name, need)

    def _class(self, name: str) -> int:
        return PINNED if name in self.pinned else WANTED if self._wanted[name] else NOBODYS

    def _plan(
        self,
        names: Iterable[str],
        runs: int,
        candidates: Callable[[], Sequence[Evictable]],
        sooner: Memory = Memory(),
    ) -> Sequence[Evictable] | None:
        """What must go of the candidates for a claim to these beside what is needed `sooner`; None if it can't be."""
        after, limits = self.ledger.used + sooner, self.ledger.limits
        for name in names:
            holding = self.engines.get(name) or self._new(name)
            after += holding.due_for(holding.runs + runs) - holding.charge
        if limits.hold(after):
            return ()
        going, after = choose(candidates(), after, limits)
        return going if limits.hold(after) else None

    def _grant(self, names: Iterable[str], users: int, runs: int, going: Sequence[Evictable]) -> Claim:
        self.order.evicted(going)
        claim = Claim([], runs, [], self._out(going))
        with self.ledger.change(claim.leaving):
            for name in names:
                if name not in self.engines:
                    self.engines[name] = self._new(name)
                    claim.own.append(self.engines[name])
                holding = self.engines[name]
                holding.users += users
                holding.runs += runs
                claim.holdings.append(holding)
                self.ledger.update(holding)
        return claim

    def _out(self, going: Iterable[Evictable]) -> Leaving:
        leaving = Leaving([], [])
        for thing in going:
            if isinstance(thing, Holding):
                leaving.engines.append(thing)
                del self.engines[thing.name]
            elif isinstance(thing, Feature):
                leaving.features.append(thing)
        return leaving

    def _drop_if_nobodys(self, holding: Holding) -> None:
        if holding.state is State.RESERVED and not holding.users:
            holding.state = State.GONE
            del self.engines[holding.name]
            self.ledger.update(holding)


def _engines(things: Iterable[Evictable]) -> list[Holding]:
    return [thing for thing in things if isinstance(thing, Holding)]
