"""Who waits for room, in the order in which they came."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from itertools import count


@dataclass(order=True)
class Ticket:
    """A place in the line, which stays one's own: who comes back with it stands before all who came later.

    since: when it had to wait for the first time.
    """

    number: int
    since: float | None = field(default=None, compare=False)


class Line:
    """Only its head may be served. It is almost always empty or short."""

    def __init__(self) -> None:
        self._numbers = count()
        self._waiting: list[Ticket] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def ticket(self) -> Ticket:
        """The next place."""
        return Ticket(next(self._numbers))

    def join(self, ticket: Ticket) -> None:
        """Stand in line."""
        bisect.insort(self._waiting, ticket)

    def ahead_of(self, ticket: Ticket) -> int:
        """How many stand before it."""
        return bisect.bisect_left(self._waiting, ticket)

    def leave(self, ticket: Ticket) -> None:
        """Served, or tired of waiting."""
        self._waiting.remove(ticket)
