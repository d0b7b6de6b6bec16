"""Shards' answers as one file: the same bytes as without shards."""

import fcntl
import json

import pytest

from command_line import assert_user_error
from mova_runtime import ImageError
from question_files import question, some_questions


@pytest.fixture
def sharded(evaluation):
    """Three shards' answers; whole.jsonl has all of them."""
    evaluation.parts = [evaluation.folder / f"{number}.jsonl" for number in range(3)]
    evaluation.write(*some_questions(4), *[question(-1)] * 4)
    for number, part in enumerate(evaluation.parts):
        assert evaluation.run("--shard", f"{number}/3", answers=part).status == 0
    assert evaluation.run(answers=evaluation.folder / "whole.jsonl").status == 0
    return evaluation


def join(evaluation, *parts, more=()):
    files = ("--questions", evaluation.file, "--answers", evaluation.answers)
    return evaluation.command("eval", "--join", *(parts or evaluation.parts), *files, *more)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_joined_shards_are_what_one_run_writes(sharded, order):
    done = join(sharded, *[sharded.parts[number] for number in order])
    assert (done.status, done.error) == (0, "")
    assert done.output == f"{sharded.answers}: 8 answers to 8 questions, from 3 files\n"
    assert sharded.answers.read_bytes() == (sharded.folder / "whole.jsonl").read_bytes()


def test_what_is_missing_is_told_and_can_be_answered_later(sharded):
    sharded.parts[1].unlink()
    sharded.runtime.errors = {"Question 1?": ImageError("gone")}
    assert sharded.run("--shard", "1/3", answers=sharded.parts[1]).status == 1
    done = join(sharded)
    assert (done.status, done.error_lines) == (1, ["mova: 1 of 8 questions without an answer"])
    assert len(sharded.records()) == 7
    sharded.runtime.errors = {}
    sharded.runtime.asked.clear()
    assert sharded.run().status == 0
    assert sharded.runtime.asked == ["Question 1?"]
    assert sharded.answers.read_bytes() == (sharded.folder / "whole.jsonl").read_bytes()


def test_a_target_is_replaced_only_if_asked(sharded):
    sharded.answers.write_text("something\n")
    assert_user_error(join(sharded), "answers.jsonl: holds something already; --overwrite replaces it")
    assert sharded.answers.read_text() == "something\n"
    assert join(sharded, more=["--overwrite"]).status == 0
    assert len(sharded.records()) == 8


def test_parts_that_do_not_belong_together(sharded):
    first, second, _ = sharded.parts
    assert_user_error(join(sharded, first, first), "0.jsonl:1: the same answer as --join")
    sharded.run("--shard", "1/3", "--overwrite", "--max-new-tokens", 7, answers=second)
    assert_user_error(join(sharded), "1.jsonl:1: answered with max_new_tokens 7, not 128")
    sharded.run("--shard", "1/3", "--overwrite", "--model-id", "other", answers=second)
    assert_user_error(join(sharded), "1.jsonl:1: an answer of model 'other', not 'bundle'")
    second.write_text(f"{json.dumps(question(1))}\n")
    assert_user_error(join(sharded), "1.jsonl:1: not an answer that mova eval wrote")
    sharded.write(*some_questions(1))
    assert_user_error(join(sharded, first), "0.jsonl:2: answers a question (id 3) that is not among those asked")
    assert not sharded.answers.exists()


def test_a_part_that_is_missing_torn_at_work_or_the_target(sharded):
    first = sharded.parts[0]
    assert_user_error(join(sharded, sharded.folder / "absent.jsonl"), "absent.jsonl: can't be read (No such file")
    with first.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert_user_error(join(sharded), "0.jsonl: a process writes it")
    assert_user_error(join(sharded, first, more=["--answers", str(first)]), "0.jsonl: is one of the parts")
    first.write_bytes(first.read_bytes()[:-9])
    assert_user_error(join(sharded), "0.jsonl: its last line is torn; let its shard go on first")
    assert not sharded.answers.exists()


@pytest.mark.parametrize(
    "more",
    [["--images", "x"], ["--shard", "0/2"], ["--experts", "none"], ["--max-new-tokens", 3], ["--backend", "ort"],
     ["--precision", "fp32"], ["--threads", 1], ["--memory-budget", "1GiB"], ["--device-memory-budget", "1GiB"],
     ["--max-context", 512], ["--model-id", "x"], ["--json", "x"]],
)  # fmt: skip
def test_options_that_joining_has_no_use_for(sharded, more):
    assert_user_error(join(sharded, more=more), f"--join answers nothing, so it takes no {more[0]}")


def test_a_bundle_that_joining_has_no_use_for(sharded):
    arguments = sharded.arguments("--join", *sharded.parts)
    assert_user_error(sharded.command(*arguments), "so it takes no BUNDLE")
