"""The pool's door: leases, announcements, loads ahead, limits."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict

from mova_runtime.engines.memory import Limits
from mova_runtime.engines.pool import refusals
from mova_runtime.engines.pool.activity import Activity
from mova_runtime.engines.pool.admission import Admission
from mova_runtime.engines.pool.guard import outside
from mova_runtime.engines.pool.holding import Claim, State
from mova_runtime.engines.pool.loading import Loading
from mova_runtime.engines.pool.loads import Loads
from mova_runtime.engines.pool.shared import Shared
from mova_runtime.engines.pool.totals import EngineUse, PoolTotals
from mova_runtime.engines.protocol import Engine
from mova_runtime.errors import BackendError, MemoryBudgetError, MovaError
from mova_runtime.trace import Trace


class EnginePool:
    """Leases engines by component name. A leased engine stays; one that nobody leases may go when room is needed.

    A lease first waits in line until there is room for all it asks for; then it closes what had to go, loads what is
    missing, and waits for what others are loading. In line it has nothing that another could be waiting for.
    """

    def __init__(
        self,
        components: Sequence[str],
        loader: Loads,
        limits: Limits = Limits(),
        *,
        pinned: Collection[str] = (),
        timeout: float | None = 120.0,
        activity: Activity | None = None,
    ) -> None:
        """See below.

        Args:
            components: names of all there are, in the order in which `loaded` gives them.
            loader: loads them.
            limits: on what engines, their runs and cached features take together.
            pinned: components that stay unless a lease could not be had otherwise.
            timeout: seconds that a lease waits in line at most; None is for ever. One that has to come back to the
                line is given no more: they count from its first waiting.
            activity: shared with other pools whose work disturbs this one's measurements; None is its own.
        """
        self._components = tuple(components)
        self.shared = Shared(limits, pinned, activity or Activity())
        """For the feature cache, which lives in the same room."""
        self._admission = Admission(self.shared, timeout)
        self._loading = Loading(self.shared, loader)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the engines in memory, in the components' order."""
        with self.shared.changed:
            return tuple(name for name in self._components if self._is_loaded(name))

    @contextlib.contextmanager
    def lease(self, component: str, trace: Trace, runs: int = 1) -> Iterator[Engine]:
        """A component's engine for the duration of the block. See `lease_all`."""
        with self.lease_all((component,), trace, runs) as engines:
            yield engines[component]

    @contextlib.contextmanager
    def lease_all(self, components: Sequence[str], trace: Trace, runs: int = 1) -> Iterator[dict[str, Engine]]:
        """Engines by component, all or none, for the duration of the block; each may do `runs` runs at once.

        Who leases within a lease may wait for itself. If the block ends with a BackendError, its engines are not
        handed out any more, and closed when nobody has them.

        Raises:
            MemoryBudgetError: they can't fit the limits, or there was no room for too long.
            BundleError, BackendError: one can't be loaded (see `Loads`).
            MovaError: the pool was closed.
        """
        claim: Claim | None = None
        failed = False
        try:
            claim = self._claim(tuple(dict.fromkeys(components)), runs, trace)  # within, for Ctrl-C after it
            yield claim.engines
        except BackendError:
            failed = True
            raise
        finally:
            if claim:
                self._release(claim, trace, failed=failed)

    @property
    def limits(self) -> Limits:
        """What engines, their runs and cached features may take together."""
        return self.shared.room.ledger.limits

    def want(self, components: Iterable[str]) -> None:
        """Announce that these will be leased: they go after what nobody announced. Each needs an `unwant` later."""
        with self.shared.changed:
            self.shared.room.want(components)

    def unwant(self, components: Iterable[str]) -> None:
        """Take back a `want`."""
        names = tuple(components)

        def unwant() -> None:
            with self.shared.changed:
                self.shared.room.unwant(names)

        outside(unwant)

    def prefetch(self, component: str, trace: Trace, *, evict: bool = True, before: Sequence[str] = ()) -> bool:
        """Load an engine now, beside whatever runs, without leasing it. Never waits.

        Does nothing where it was never measured here, a lease waits in line, or there is no room.

        Args:
            component: its name.
            trace: gets the load.
            evict: engines may go for it that nobody leases, wants or has pinned.
            before: components that are needed sooner: nothing is loaded that would be in their way.

        Returns:
            Whether it is loaded. Why a load failed is told to who leases it.
        """
        try:
            return self._load_ahead(component, trace, evict=evict, before=before)
        except MovaError:
            return False

    def resize(self, limits: Limits, trace: Trace | None = None) -> None:
        """Set other limits. What they have no room for goes now, or when it comes back."""
        with self.shared.changed:
            self.shared.room.ledger.limits = limits
            leaving = self.shared.settle()
            self.shared.changed.notify_all()
        self.shared.finish(trace, leaving)

    def close(self) -> None:
        """Unload everything: what is leased, when it comes back. Who waits in line is told so."""
        with self.shared.changed:
            self.shared.closed = True
            leaving = self.shared.settle()
            self.shared.changed.notify_all()
        self.shared.finish(None, leaving)

    def totals(self) -> PoolTotals:
        """What was done so far, and what is in memory now."""
        with self.shared.changed:
            room, ledger = self.shared.room, self.shared.room.ledger
            here = [room.engines[name] for name in self._components if self._is_loaded(name)]
            return PoolTotals(
                **asdict(self.shared.counts),
                used=ledger.used,
                peak=ledger.peak,
                limits=ledger.limits,
                engines=tuple(
                    EngineUse(one.name, one.need, one.users, one.name in room.pinned, room.is_wanted(one.name))
                    for one in here
                ),
            )

    def _claim(self, names: Sequence[str], runs: int, trace: Trace) -> Claim:
        """A claim whose engines are all loaded."""
        self._loading.learn(names)
        ticket = self.shared.line.ticket()
        has_outgrown = False
        while True:
            claim: Claim | None = None
            try:
                claim = self._admission.admit(ticket, names, runs, trace)
                if self._loading.bring(claim, trace):
                    return claim
            except BaseException as error:
                if claim:
                    self._release(claim, trace)
                if not isinstance(error, refusals.OutgrownError):
                    raise
                if has_outgrown:  # waiting for what it takes now may be as much in vain
                    raise MemoryBudgetError(str(error)) from None
                has_outgrown = True
            else:
                self._release(claim, trace)  # an engine failed meanwhile
            # once more, from the same place in line

    def _release(self, claim: Claim, trace: Trace, *, failed: bool = False) -> None:
        outside(lambda: self._end(claim, trace, failed=failed))

    def _end(self, claim: Claim, trace: Trace, *, failed: bool) -> None:
        shared = self.shared
        with shared.changed:
            if claim.running:
                shared.activity.end()
            if failed:
                shared.counts.failures += sum(holding.state is State.LOADED for holding in claim.holdings)
            ended = shared.room.release(claim, failed=failed)
            idle = shared.settle()
            shared.changed.notify_all()
        shared.finish(trace, ended, idle)

    def _load_ahead(self, component: str, trace: Trace, *, evict: bool, before: Sequence[str]) -> bool:
        shared, room = self.shared, self.shared.room
        if component in room.engines or not self._loading.is_known(component):
            return self._is_loaded(component)
        self._loading.learn((component, *before))
        with shared.changed:
            if component in room.engines or shared.closed or shared.line:
                return self._is_loaded(component)
            claim = room.reserve(component, evict=evict, before=before)
        if claim:
            self._loading.load_own(claim, trace)
        return self._is_loaded(component)

    def _is_loaded(self, name: str) -> bool:
        holding = self.shared.room.engines.get(name)
        return holding is not None and holding.state is State.LOADED
