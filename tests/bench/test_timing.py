"""Statistics and the order of runs; facts of the facts. Nothing heavy is measured."""

from __future__ import annotations

import json
import statistics
import subprocess

import pytest

from mova_export.bench import facts
from mova_export.bench.timing import Contender, Spread, interleave, ratios


def test_spread_is_the_decile_definition_of_the_standard_library() -> None:
    sample = [5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 7.0]
    deciles = statistics.quantiles(sample, n=10, method="inclusive")
    spread = Spread.of(sample)
    assert (spread.median, spread.count) == (4.0, 7)
    assert (spread.p10, spread.p90) == pytest.approx((deciles[0], deciles[-1]))
    assert spread.p95 == pytest.approx(statistics.quantiles(sample, n=20, method="inclusive")[-1])


def test_spread_of_one_and_of_nothing() -> None:
    assert Spread.of([2.5]) == Spread(2.5, 2.5, 2.5, 2.5, 1)
    with pytest.raises(ValueError, match="empty"):
        Spread.of([])


def test_runs_take_turns_after_the_warm_up() -> None:
    order: list[str] = []
    contenders = {name: Contender(lambda _, name=name: order.append(name)) for name in "ab"}
    times = interleave(contenders, repeats=3, warmup=1, settle=0)
    assert order == ["a", "b"] * 4
    assert {name: len(sample) for name, sample in times.items()} == {"a": 3, "b": 3}
    assert all(seconds >= 0 for sample in times.values() for seconds in sample)


def test_what_prepares_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("mova_export.bench.timing.time.perf_counter", lambda: clock[0])

    def spend(seconds: float) -> float:
        clock[0] += seconds
        return seconds

    contender = Contender(run=lambda prepared: spend(prepared / 5), prepare=lambda: spend(10.0))
    assert interleave({"a": contender}, repeats=2, warmup=0, settle=0) == {"a": [2.0, 2.0]}


def test_collecting_garbage_is_on_again_after_a_failure() -> None:
    import gc

    def fail(_: object) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        interleave({"a": Contender(fail)}, repeats=1, warmup=0, settle=0)
    assert gc.isenabled()


def test_ratios_are_of_neighbours() -> None:
    assert ratios([1.0, 9.0], [2.0, 3.0]) == [0.5, 3.0]
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        ratios([1.0], [])


def test_facts_name_machine_versions_and_commit() -> None:
    found = facts.facts(threads=3)
    assert json.loads(json.dumps(found)) == found
    assert found["threads"] == 3
    assert found["precision"] == "float32"
    assert set(found["versions"]) == {"python", *facts.PACKAGES}
    assert found["machine"]["cpu"]
    assert found["machine"]["cores"] >= 1


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        ("AMD EPYC", "amd-epyc-2-cores"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "intel-xeon-platinum-8481c-2-cores"),
        ("", "2-cores"),
    ],
)
def test_short_name_is_a_file_name(monkeypatch: pytest.MonkeyPatch, cpu: str, expected: str) -> None:
    monkeypatch.setattr(facts, "cpu_model", lambda: cpu)
    monkeypatch.setattr(facts, "cores", lambda: 2)
    assert facts.short_name() == expected


def test_outside_a_repository_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_git(*_arguments: object, **_options: object) -> None:
        raise subprocess.CalledProcessError(128, "git")

    monkeypatch.setattr("mova_export.bench.facts.subprocess.run", no_git)
    assert facts.commit() == "unknown"
