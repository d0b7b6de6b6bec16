"""Contenders in turn: how long, in which order, and what of it is compared."""

from __future__ import annotations

import pytest

from mova_export.bench.turns import TURN_SECONDS, Budget, Run, take_turns
from mova_export.errors import WorkerError


def no_failure(label: str, error: WorkerError) -> None:
    raise AssertionError(f"{label}: {error}")


def of(seconds: float, label: str = "", order: list[str] | None = None) -> Run:
    """A contender each of whose runs takes so many seconds, as its worker would run it."""

    def run(most: int, at_most: float) -> list[float]:
        if order is not None:
            order.append(label)
        count = 1
        while count < most and count * seconds < at_most:
            count += 1
        return [seconds] * count

    return run


@pytest.mark.parametrize(
    ("seconds", "count"),
    [(0.001, 50), (0.1, 20), (0.5, 4), (1.0, 3), (9.0, 3), (11.0, 2)],
)
def test_a_budget_of_seconds(seconds: float, count: int) -> None:
    found = take_turns({"a": of(seconds)}, Budget(None, 2.0), [], no_failure, settle=0)
    assert len(found.times["a"]) == pytest.approx(count, abs=1 if seconds == 0.1 else 0)


@pytest.mark.parametrize("seconds", [0.001, 100.0])
@pytest.mark.parametrize("repeats", [1, 7, 60])
def test_so_many_repeats_whatever_they_take(seconds: float, repeats: int) -> None:
    found = take_turns({"a": of(seconds)}, Budget(repeats, 2.0), [], no_failure, settle=0)
    assert len(found.times["a"]) == repeats


def test_who_is_done_drops_out_and_the_others_go_on() -> None:
    order: list[str] = []
    runs = {"slow": of(5.0, "s", order), "fast": of(0.4, "f", order)}
    found = take_turns(runs, Budget(None, 2.0), [("fast", "slow")], no_failure, settle=0)
    assert "".join(order) == "sfsfsfff"
    assert found.ratios["fast", "slow"] == pytest.approx([0.08] * 3)


def test_a_short_run_is_repeated_within_its_turn_and_compared_with_its_neighbours() -> None:
    turns: list[int] = []

    def quick(most: int, seconds: float) -> list[float]:
        assert seconds <= TURN_SECONDS
        turns.append(most)
        return [0.01] * most

    found = take_turns({"ours": quick, "theirs": of(0.1)}, Budget(20, 1.0), [("ours", "theirs")], no_failure, settle=0)
    assert sum(turns) == len(found.times["ours"]) == 20
    assert len(turns) < 20
    assert 4 <= len(found.ratios["ours", "theirs"]) < 20
    assert found.ratios["ours", "theirs"] == pytest.approx([0.1] * len(found.ratios["ours", "theirs"]))


def test_who_fails_drops_out_with_what_was_timed() -> None:
    left = iter([[1.0], [1.0]])

    def breaks(most: int, seconds: float) -> list[float]:
        if (times := next(left, None)) is None:
            raise WorkerError("gone")
        return times

    failed: list[tuple[str, str]] = []
    found = take_turns(
        {"breaks": breaks, "stays": of(1.0)},
        Budget(4, 1.0),
        [("stays", "breaks")],
        lambda label, error: failed.append((label, str(error))),
        settle=0,
    )
    assert failed == [("breaks", "gone")]
    assert {label: len(times) for label, times in found.times.items()} == {"breaks": 2, "stays": 4}
    assert len(found.ratios["stays", "breaks"]) == 2
