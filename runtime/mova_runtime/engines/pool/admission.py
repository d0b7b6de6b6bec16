"""The way into the room: one line, first come first served."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mova_runtime.engines.pool import refusals
from mova_runtime.engines.pool.holding import Claim
from mova_runtime.engines.pool.line import Ticket
from mova_runtime.engines.pool.shared import Shared
from mova_runtime.errors import MovaError
from mova_runtime.trace import Trace


class Admission:
    """Lets claims into a pool's room. Only the head of the line is ever let in, even where others would fit."""

    def __init__(self, shared: Shared, timeout: float | None) -> None:
        """`timeout`: seconds after its first waiting that a ticket is given up on; None is never."""
        self._shared = shared
        self._timeout = timeout

    def admit(self, ticket: Ticket, names: Sequence[str], runs: int, trace: Trace) -> Claim:
        """A claim to all of these engines, when there is room. The pool must know what they need.

        Raises:
            MemoryBudgetError: there can't be room, or it took too long.
            MovaError: the pool was closed.
        """
        shared = self._shared
        with shared.changed:
            shared.line.join(ticket)
            try:
                return self._try(ticket, names, runs) or self._wait(ticket, names, runs, trace)
            finally:
                shared.line.leave(ticket)
                if shared.line:
                    shared.changed.notify_all()

    def _try(self, ticket: Ticket, names: Sequence[str], runs: int) -> Claim | None:
        shared, room = self._shared, self._shared.room
        if shared.closed:
            raise MovaError("the runtime is closed")
        takes = room.takes(names, runs)
        if not room.ledger.limits.hold(takes):
            raise refusals.never_fits(names, takes, room.ledger.limits)
        return None if shared.line.ahead_of(ticket) else room.claim(names, runs)

    def _wait(self, ticket: Ticket, names: Sequence[str], runs: int, trace: Trace) -> Claim:
        shared, begin = self._shared, time.monotonic()
        if ticket.since is None:
            ticket.since = begin
            shared.counts.waits += 1
        try:
            with trace.stage("wait for room"):
                while (left := self._left(ticket.since)) is None or left > 0:
                    shared.changed.wait(left)
                    if claim := self._try(ticket, names, runs):
                        return claim
        finally:
            shared.counts.wait_seconds += time.monotonic() - begin
        room, ahead = shared.room, shared.line.ahead_of(ticket)
        takes, limits = room.takes(names, runs), room.ledger.limits
        raise refusals.waited(self._timeout or 0, names, takes, limits, room.busy(), ahead)

    def _left(self, since: float) -> float | None:
        return None if self._timeout is None else since + self._timeout - time.monotonic()
