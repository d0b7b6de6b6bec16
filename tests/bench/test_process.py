"""A process that measures: what it answers, and that the benchmark outlives it."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from typing import Any

import pytest

from mova_export.bench.process import Worker
from mova_export.bench.worker import serve
from mova_export.errors import WorkerError

ANSWERS = """
import json, os, signal, sys, time
for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "echo":
        print(json.dumps({"answer": asked["what"]}), flush=True)
    elif asked["do"] == "fail":
        print(json.dumps({"error": "it did not work"}), flush=True)
    elif asked["do"] == "crash":
        print("out of luck", file=sys.stderr, flush=True)
        sys.exit(3)
    elif asked["do"] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        time.sleep(600)
"""


def worker() -> Worker:
    return Worker([sys.executable, "-c", ANSWERS])


def is_gone(one: Worker) -> bool:
    return one._process.poll() is not None


def test_it_answers_and_is_gone_at_the_end() -> None:
    with worker() as one:
        assert one.ask("echo", what="ä" * 100_000) == {"answer": "ä" * 100_000}
        assert one.ask("echo", what=[1.5, None]) == {"answer": [1.5, None]}
    assert is_gone(one)


def test_an_error_is_raised_and_the_process_goes_on() -> None:
    with worker() as one:
        with pytest.raises(WorkerError, match=r"^it did not work$"):
            one.ask("fail")
        assert one.ask("echo", what=1) == {"answer": 1}


@pytest.mark.parametrize(
    ("do", "said"),
    [
        ("crash", "its process ended with status 3: out of luck"),
        ("killed", "its process was ended by SIGKILL, as where memory runs out"),
    ],
)
def test_one_that_dies_is_told_of_now_and_whenever_it_is_asked(do: str, said: str) -> None:
    with worker() as one:
        for _ in range(2):
            with pytest.raises(WorkerError) as raised:
                one.ask(do)
            assert str(raised.value) == said


def test_one_that_hangs_is_ended() -> None:
    with worker() as one:
        start = time.monotonic()
        with pytest.raises(WorkerError, match="no answer in 0 s"):
            one.ask("sleep", patience=0.3)
        assert time.monotonic() - start < 10
        assert is_gone(one)


def test_one_at_work_does_not_keep_us() -> None:
    start = time.monotonic()
    with worker() as one:
        one.send("sleep")
    assert is_gone(one)
    assert time.monotonic() - start < 10


def test_a_step_that_fails_is_an_answer_of_one_line() -> None:
    class Steps:
        def answer(self, do: str, **asked: Any) -> dict[str, Any]:
            if do == "break":
                raise ValueError("two\nlines")
            return {"found": asked["what"]}

    out = io.StringIO()
    serve(['{"do": "break"}\n', '{"do": "go", "what": 2}\n'], out, Steps())
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {"error": "ValueError: two lines"},
        {"found": 2},
    ]


def test_a_failure_is_one_line(tmp_path: Any) -> None:
    with Worker() as one, pytest.raises(WorkerError) as raised:
        one.ask("open", bundle=str(tmp_path), component="sam", backend="ort", precision="fp32", threads=1)
    assert "not a bundle" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_it_is_of_a_session_of_its_own() -> None:
    with worker() as one:
        assert os.getsid(one._process.pid) != os.getsid(0)
