"""Kills at random moments, polite and not: what was answered stays, and the file ends as if nothing had happened."""

import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fake_runtime
from hard_times import heed_signals
from question_files import Evaluation, as_lines, question, some_questions
from reference_data import IMAGES

FAKE = [sys.executable, fake_runtime.__file__]
MOVA = [sys.executable, "-m", "mova_export"]
KILLS = 10
AHEAD = 4
DEADLINE = 300.0
"""Seconds, for a machine that does much else."""


def start(command, arguments, pause=0.0):
    environment = {**os.environ, fake_runtime.PAUSE: str(pause), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [*command, *arguments], env=environment, preexec_fn=heed_signals, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def lines_in(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def wait_for_lines(process, file, count):
    deadline = time.monotonic() + DEADLINE
    while lines_in(file) < count and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)  # polls for the file to grow; nothing is assumed of how long that takes


def kill_and_go_on(command, arguments, file, answers, asked, chance, pause=0.0):
    """Processes that are killed at random moments, of their start or of an answer, ten of them; one that is not.

    There are always a few questions more than are answered, so that there is something to kill on any machine; one that
    is quicker does not count. Returns what the last one told.
    """
    killed = grown = 0
    while killed < KILLS:
        before = lines_in(answers)
        file.write_text(as_lines(asked[: before + AHEAD]))
        assert before + AHEAD <= len(asked), "most processes were quicker than their kill"
        process = start(command, arguments, pause)
        if chance.random() < 0.7:
            wait_for_lines(process, answers, before + 1)
            time.sleep(chance.uniform(0, 0.05))
        else:
            time.sleep(chance.uniform(0, 0.3))
        process.kill()
        _, told = process.communicate(timeout=DEADLINE)
        assert process.returncode in (-signal.SIGKILL, 0), told
        if process.returncode:
            killed += 1
            grown += lines_in(answers) - before
    assert grown > 3, "kills that come before anything happens prove nothing"
    last = start(command, arguments)
    output, told = last.communicate(timeout=DEADLINE)
    assert last.returncode == 0, told
    return output


@pytest.mark.parametrize("seed", [1, 2])
def test_ten_kills_end_with_the_same_bytes(evaluation: Evaluation, seed: int) -> None:
    asked = [question(-1), question(-1), *some_questions(200)]
    chance, answers = random.Random(seed), evaluation.answers
    output = kill_and_go_on(FAKE, evaluation.arguments(), evaluation.file, answers, asked, chance, pause=0.03)
    count = lines_in(answers)
    assert f"{count} of {count} questions answered" in output
    whole = evaluation.folder / "whole.jsonl"
    assert evaluation.run(answers=whole).status == 0
    assert answers.read_bytes() == whole.read_bytes()
    assert not list(evaluation.folder.glob(".*"))


def test_ten_kills_of_a_bundles_run_end_with_the_same_bytes(bundle, tmp_path: Path) -> None:
    names = [f"{name}.png" for name in ("chart", "photo", "document")]
    asked = [question(-1, names[number % 3], f"What is {number}?") for number in range(200)]
    file, answers, whole = (tmp_path / name for name in ("questions.jsonl", "answers.jsonl", "whole.jsonl"))
    given = ["eval", str(bundle(2)), "--questions", str(file), "--images", str(IMAGES), "--experts", "none"]
    given += ["--max-new-tokens", "2", "--threads", "1", "--answers"]
    kill_and_go_on(MOVA, [*given, str(answers)], file, answers, asked, random.Random(3))
    uninterrupted = start(MOVA, [*given, str(whole)])
    _, told = uninterrupted.communicate(timeout=DEADLINE)
    assert uninterrupted.returncode == 0, told
    assert answers.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_polite_kill_ends_in_one_line(evaluation: Evaluation, number: signal.Signals, status: int) -> None:
    process = start(FAKE, evaluation.arguments(), pause=0.3)
    wait_for_lines(process, evaluation.answers, 2)
    process.send_signal(number)
    output, told = process.communicate(timeout=DEADLINE)
    left = lines_in(evaluation.answers)
    assert 2 <= left < 5
    assert evaluation.answers.read_bytes().endswith(b"\n")
    assert (process.returncode, output) == (status, "")
    assert "Traceback" not in told
    assert told.splitlines()[-1] == f"mova: interrupted; {left} of 5 questions are answered, the same command goes on"
    assert evaluation.run().status == 0
    assert [record["question_id"] for record in evaluation.records()] == [0, 1, 2, 3, 4]


HALF_WRITTEN = """
import os, signal, sys
import fake_runtime

really, written = os.write, []

def write_half(descriptor, data):
    if not written:
        written.append(really(descriptor, bytes(data)[:40]))  # as where the disk takes less than it was given
        signal.raise_signal(signal.SIGINT)
        return 40
    return really(descriptor, data)

os.write = write_half
sys.exit(fake_runtime.main())
"""


def test_a_signal_while_an_answer_is_written_waits_for_it(evaluation: Evaluation) -> None:
    """In a process of its own: a library that a test before has loaded may have its own idea of SIGINT."""
    process = start([sys.executable, "-c", HALF_WRITTEN], evaluation.arguments())
    output, told = process.communicate(timeout=DEADLINE)
    assert (process.returncode, output) == (130, "")
    assert told.splitlines()[-1] == "mova: interrupted; 1 of 5 questions are answered, the same command goes on"
    assert len(evaluation.records()) == 1
    assert evaluation.run().status == 0
    assert len(evaluation.records()) == 5


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "| true", "2> >(true)"])
def test_nobody_reads_what_a_run_tells(evaluation: Evaluation, closed: str) -> None:
    evaluation.write(*some_questions(5), "bad")
    line = f"{shlex.join([*FAKE, *evaluation.arguments()])} {closed}"
    subprocess.run(["bash", "-c", line], check=False, capture_output=True, timeout=DEADLINE)
    assert len(evaluation.records()) == 5


def test_two_processes_do_not_write_one_file(evaluation: Evaluation) -> None:
    first = start(FAKE, evaluation.arguments(), pause=0.3)
    wait_for_lines(first, evaluation.answers, 1)
    second = start(FAKE, evaluation.arguments())
    output, told = second.communicate(timeout=DEADLINE)
    assert first.poll() is None
    assert (second.returncode, output) == (2, "")
    assert told == f"mova: --answers {evaluation.answers}: another process writes it\n"
    first.communicate(timeout=DEADLINE)
    assert first.returncode == 0
    assert len(evaluation.records()) == 5
