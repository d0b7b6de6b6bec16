"""Contenders in turn, until each has run long enough; what were neighbours in time is compared."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mova_export.bench.timing import ratios
from mova_export.errors import WorkerError

TURN_SECONDS = 0.3
"""What is short is run several times in a turn, for so long at most."""

SETTLE_SECONDS = 0.05
"""Between two turns: threads of whoever ran last spin for so long, at most, and would take the next one's cores."""

_LEAST, _LEAST_OF_SLOW, _MOST = 3, 2, 50
_SLOW_SECONDS = 10.0
_IN_A_TURN = math.ceil(_MOST / _LEAST)

Run = Callable[[int, float], list[float]]
"""Run so often in a row, or for so many seconds; the seconds of each run."""


@dataclass(frozen=True)
class Budget:
    """How much of one contender is measured: `repeats` runs, or what `seconds` of running allow."""

    repeats: int | None
    seconds: float

    def is_used(self, times: Sequence[float]) -> bool:
        """Whether these runs are enough."""
        if self.repeats is not None:
            return len(times) >= self.repeats
        if not times:
            return False
        least = _LEAST_OF_SLOW if statistics.median(times) > _SLOW_SECONDS else _LEAST
        return len(times) >= _MOST or (len(times) >= least and sum(times) >= self.seconds)

    def next_turn(self, times: Sequence[float]) -> tuple[int, float]:
        """How many runs a turn has at most, and how many seconds."""
        left = (_MOST if self.repeats is None else self.repeats) - len(times)
        return min(_IN_A_TURN, left), min(TURN_SECONDS, self.seconds / _LEAST)


@dataclass
class Turns:
    """What came of it: seconds of every run, and ratios of neighbours in time, ours over theirs."""

    times: dict[str, list[float]] = field(default_factory=dict)
    ratios: dict[tuple[str, str], list[float]] = field(default_factory=dict)


def take_turns(
    runs: Mapping[str, Run],
    budget: Budget,
    pairs: Sequence[tuple[str, str]],
    failed: Callable[[str, WorkerError], None],
    settle: float = SETTLE_SECONDS,
) -> Turns:
    """Run contenders A B A B …, so that what else the machine does meets all of them alike.

    Args:
        runs: by label.
        budget: of each; who has used it drops out.
        pairs: labels of ours and theirs, to be compared.
        failed: told of who failed, and drops out with what was timed before.
        settle: seconds to wait before each turn: see `SETTLE_SECONDS`.
    """
    found = Turns({label: [] for label in runs}, {pair: [] for pair in pairs})
    active = list(runs)
    while active:
        turn: dict[str, list[float]] = {}
        for label in tuple(active):
            time.sleep(settle)
            try:
                turn[label] = runs[label](*budget.next_turn(found.times[label]))
            except WorkerError as error:
                active.remove(label)
                failed(label, error)
                continue
            found.times[label] += turn[label]
            if budget.is_used(found.times[label]):
                active.remove(label)
        for mine, other in pairs:
            both = min(len(turn.get(mine, ())), len(turn.get(other, ())))
            if both:
                found.ratios[mine, other] += ratios(turn[mine][:both], turn[other][:both])
    return found
