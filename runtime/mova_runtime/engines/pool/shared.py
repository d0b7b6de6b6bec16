"""What the threads of a pool share: one room, one line, one lock for both."""

from __future__ import annotations

import contextlib
from collections.abc import Collection

from mova_runtime.engines.memory import Limits
from mova_runtime.engines.pool.activity import Activity
from mova_runtime.engines.pool.guard import Guard
from mova_runtime.engines.pool.holding import Leaving
from mova_runtime.engines.pool.line import Line
from mova_runtime.engines.pool.room import PINNED, Room
from mova_runtime.engines.pool.totals import Counts
from mova_runtime.trace import Trace


class Shared:
    """Everything here is read and changed with `changed` held, but for `finish`, which takes it."""

    def __init__(self, limits: Limits, pinned: Collection[str], activity: Activity) -> None:
        self.changed = Guard()
        """Notified when room came free, an engine's state changed, or the head of the line did."""
        self.room = Room(limits, pinned)
        self.line = Line()
        self.activity = activity
        self.counts = Counts()
        self.closed = False

    def settle(self) -> Leaving:
        """Let go what there is no room for any more; everything idle once the pool is closed."""
        return self.room.let_go(self.room.idle(PINNED)) if self.closed else self.room.settle()

    def finish(self, trace: Trace | None, *leavings: Leaving) -> None:
        """Close what leaves, and give its memory back to the ledger. Not with `changed` held: closing takes time."""
        leavings = tuple(leaving for leaving in leavings if leaving)
        if not leavings:
            return
        with self.changed:
            self.activity.begin()
        try:
            for leaving in leavings:
                _close(leaving, trace)
        finally:
            with self.changed:
                self.activity.end()
                for leaving in leavings:
                    self.room.ledger.gone(leaving)
                    if leaving.evicted:
                        self.counts.evictions += len(leaving.engines)
                        self.counts.evicted_bytes += sum(one.need.resident.total for one in leaving.engines)
                    leaving.engines.clear()
                self.changed.notify_all()


def _close(leaving: Leaving, trace: Trace | None) -> None:
    if trace and leaving.evicted:
        for holding in leaving.engines:
            trace.mark(f"evict {holding.name}", bytes=holding.need.resident.total)
        for feature in leaving.features:
            trace.mark(f"cache drop {feature.name}", bytes=feature.charge.total)
    leaving.features.clear()
    with contextlib.ExitStack() as all_of_them:
        for holding in leaving.engines:
            if holding.engine:
                # one that can't be closed is gone all the same, and not the fault of who needs its room
                all_of_them.enter_context(contextlib.suppress(Exception))
                all_of_them.callback(holding.engine.close)
                holding.engine = None
