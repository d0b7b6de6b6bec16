"""From room for engines to engines: a claim loads what is missing, and waits for what others are loading.

Own loads come first, and a load waits for nobody, so no two claims wait for each other.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mova_runtime.engines.pool import refusals
from mova_runtime.engines.pool.holding import Claim, Holding, State
from mova_runtime.engines.pool.loads import Loads
from mova_runtime.engines.pool.shared import Shared
from mova_runtime.errors import MovaError, OutOfMemoryError
from mova_runtime.trace import Trace

if TYPE_CHECKING:
    from mova_runtime.engines.loader import Loaded


class Loading:
    """Loads a pool's engines in the threads that claim them."""

    def __init__(self, shared: Shared, loader: Loads) -> None:
        self._shared = shared
        self._loader = loader

    def learn(self, names: Sequence[str]) -> None:
        """Ask what engines need, once: the loader may have to read files. Raises like `Loads.need`."""
        shared, room = self._shared, self._shared.room
        for name in names:
            if not room.knows(name):  # without the lock: it is never forgotten
                need, seconds = self._loader.need(name), self._loader.seconds(name)
                with shared.changed:
                    if not room.knows(name):  # a load may have told better
                        room.learn(name, need, seconds)

    def is_known(self, name: str) -> bool:
        """Whether an engine may be loaded beside other work."""
        return self._loader.is_known(name)

    def bring(self, claim: Claim, trace: Trace) -> bool:
        """Have all of a claim's engines loaded, and hand them out.

        Raises what the load of one of them raised, whoever tried it. What is still missing then is left to others.
        `refusals.OutgrownError` is for a claim to be made anew.

        Returns:
            False where one of them failed in another's lease meanwhile; then nothing is handed out.
        """
        while True:
            self.load_own(claim, trace)
            with self._shared.changed:
                found = {holding.state: holding for holding in claim.holdings}
                if failed := found.get(State.GONE):
                    assert failed.error
                    raise copy.copy(failed.error)  # each with a traceback of its own
                if State.DYING in found:
                    return False
                if reserved := found.get(State.RESERVED):
                    self._shared.room.take(reserved)
                    claim.own.append(reserved)
                elif loading := found.get(State.LOADING):
                    self._wait(loading, trace)
                else:
                    claim.running = True
                    self._shared.activity.begin()
                    self._shared.counts.leases += 1
                    return True

    def load_own(self, claim: Claim, trace: Trace) -> None:
        """Close what leaves for a claim, and load what is the claim's to load. Raises what a load raises."""
        try:
            self._shared.finish(trace, claim.leaving)
            while claim.own:
                self._load(claim.own[0], trace)
                claim.own.pop(0)
        except BaseException:
            with self._shared.changed:
                for holding in claim.own:
                    if holding.state is State.LOADING:
                        self._shared.room.give_up(holding)
                self._shared.changed.notify_all()
            raise

    def _wait(self, holding: Holding, trace: Trace) -> None:
        with trace.stage(f"wait for {holding.name}"):
            self._shared.changed.wait_for(lambda: holding.state is not State.LOADING)

    def _load(self, holding: Holding, trace: Trace) -> None:
        shared = self._shared
        ahead = not holding.users
        try:
            loaded = self._attempt(holding, trace, again=not ahead)
        except MovaError as error:
            with shared.changed:
                shared.counts.failures += 1
                if not (ahead and isinstance(error, OutOfMemoryError)):  # a lease that waits by now makes room first
                    shared.room.withdraw(holding, copy.copy(error))  # without the frames that the traceback holds
                    shared.changed.notify_all()
            raise
        with shared.changed:
            refused = None
            leaving = shared.room.loaded(holding, loaded.engine, loaded.need, loaded.seconds)
            if leaving is None:
                limits, busy = shared.room.ledger.limits, shared.room.busy(but=holding)
                fits = limits.hold(holding.need.peak)
                refused = refusals.outgrown(holding.name, holding.due, limits, busy, fits_alone=fits)
                leaving = shared.room.withdraw(holding, copy.copy(refused))
                shared.counts.failures += 1
            else:
                shared.counts.loads += 1
                shared.counts.load_seconds += loaded.seconds
                shared.counts.prefetched += ahead
            idle = shared.settle()
            shared.changed.notify_all()
        shared.finish(trace, leaving, idle)
        if refused:
            raise refused

    def _attempt(self, holding: Holding, trace: Trace, *, again: bool, final: bool = False) -> Loaded:
        """Load; where memory runs out, once `again` without what is idle, which is `final`."""
        shared = self._shared
        with shared.changed:
            shared.activity.begin(load=True)
        try:
            return self._loader.load(holding.name, trace, self._alone, final=final)
        except OutOfMemoryError:
            if not again:
                raise
        finally:
            with shared.changed:
                shared.activity.end(load=True)
        with shared.changed:
            leaving = shared.room.let_go(shared.room.unwanted())
        shared.finish(trace, leaving)
        return self._attempt(holding, trace, again=False, final=True)

    def _alone(self) -> int | None:
        with self._shared.changed:
            return self._shared.activity.alone()
