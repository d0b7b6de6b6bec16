"""What a trace says: tracks, totals of loading, and what it costs."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from mova_runtime.errors import MovaError
from mova_runtime.options import Options, check
from mova_runtime.trace import Recorder, Trace, loading

AHEAD, OWN = "mova-prefetch_0", "MainThread"


def stage(name: str, ms: float, thread: str = OWN) -> dict[str, Any]:
    return {"name": name, "ms": ms, "thread": thread}


@pytest.mark.parametrize(
    ("stages", "ms", "exposed", "hidden"),
    [
        ([], 0, 0, 0),
        ([stage("load sam", 30), stage("check sam", 20), stage("sam", 99)], 50, 50, 0),
        ([stage("load sam", 30, AHEAD)], 30, 0, 30),
        ([stage("load sam", 30, AHEAD), stage("wait for sam", 10)], 30, 10, 20),
        ([stage("wait for room", 70), stage("load sam", 30)], 30, 30, 0),
        # another request's load was waited for: not one of those that this request had hidden
        ([stage("load sam", 30, AHEAD), stage("wait for vary", 10)], 30, 10, 30),
        ([stage("load sam", 30, AHEAD), stage("wait for sam", 31)], 30, 31, 0),
    ],
)
def test_what_loading_took(stages: list[dict[str, Any]], ms: float, exposed: float, hidden: float) -> None:
    assert loading(stages, "mova-prefetch") == {"ms": ms, "exposed_ms": exposed, "hidden_ms": hidden}


def test_threads_of_one_name_have_tracks_of_their_own() -> None:
    recorder, together = Recorder(), threading.Barrier(2)

    def work() -> None:
        with Trace(recorder).stage("work"):
            together.wait(10)

    threads = [threading.Thread(target=work, name="worker") for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = recorder.chrome()["traceEvents"]
    assert [event["args"]["name"] for event in events if event["ph"] == "M"] == ["worker", "worker"]
    assert len({event["tid"] for event in events if event["ph"] == "X"}) == 2


def test_a_stage_that_fails_is_timed_and_facts_can_be_added() -> None:
    trace = Trace()

    def fail() -> None:
        with trace.stage("load sam", bytes=1) as facts:
            facts["of"] = "sam"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    (found,) = trace.stages()
    assert (found["name"], found["bytes"], found["of"], found["thread"]) == ("load sam", 1, "sam", OWN)
    assert found["ms"] >= 0


def test_marks_are_no_stages() -> None:
    recorder = Recorder()
    trace = Trace(recorder)
    trace.mark("cache hit", component="sam")
    assert trace.count("cache hit") == 1
    assert trace.stages() == ()
    trace.beside().mark("evict sam", bytes=3)
    assert trace.count("evict sam") == 0
    marks = [event for event in recorder.chrome()["traceEvents"] if event["ph"] == "i"]
    assert [(mark["name"], mark["args"]) for mark in marks] == [
        ("cache hit", {"component": "sam"}),
        ("evict sam", {"bytes": 3}),
    ]


def test_a_recorder_keeps_as_many_events_as_it_is_told() -> None:
    none, two = Recorder(0), Recorder(2)
    for recorder in (none, two):
        trace = Trace(recorder)
        for name in "abc":
            trace.mark(name)
        assert trace.count("a") == 1  # the request itself forgets nothing
    assert not none.chrome()["traceEvents"]
    assert [event["name"] for event in two.chrome()["traceEvents"] if event["ph"] == "i"] == ["b", "c"]


@pytest.mark.parametrize("events", [-1, True, 1.0, "10", None])
def test_what_is_no_number_of_events(events: Any) -> None:
    with pytest.raises(MovaError, match=r"trace_events is how many events to keep, from 0 up, not "):
        check(Options(trace_events=events), ())
