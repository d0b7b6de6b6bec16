"""The answers file: found again wherever it was cut, nobody else's, and never half a line."""

import errno
import fcntl
import json
import os

import pytest

from command_line import assert_user_error
from hard_times import files_at_most
from mova_export.evaluation.kept import split
from mova_runtime import ImageError
from question_files import question, some_questions


def test_wherever_it_was_cut_the_file_becomes_the_same(evaluation):
    evaluation.write(*some_questions(2))
    evaluation.run()
    whole = evaluation.answers.read_bytes()
    first = whole.index(b"\n") + 1
    moments = {*range(0, len(whole), 37), *range(24), first - 1, first, first + 1, len(whole) - 1}
    for moment in sorted(moments):
        evaluation.answers.write_bytes(whole[:moment])
        evaluation.runtime.asked.clear()
        done = evaluation.run()
        assert (done.status, done.error) == (0, ""), moment
        assert evaluation.answers.read_bytes() == whole, moment
        assert len(evaluation.runtime.asked) == 2 - (moment >= first), "an answer that is whole is not asked for again"


@pytest.mark.parametrize(
    "tail", [b'{"question_id": 4, "pro\n', b"\0" * 80, b'{"question_id": 4, "te\0\0\0', b"\n", b"{"]
)
def test_other_ends_that_a_kill_or_a_power_failure_leaves(evaluation, tail):
    evaluation.run()
    whole = evaluation.answers.read_bytes()
    evaluation.answers.write_bytes(whole + tail)
    assert evaluation.run().status == 0
    assert evaluation.answers.read_bytes() == whole


FOREIGN = {
    "text": b"shopping list\n",
    "text without a line's end": b"shopping list",
    "a question": json.dumps(question(1)).encode() + b"\n",
    "a question without a line's end": json.dumps(question(1)).encode(),
    "other JSON": b'{"a": 1}\n',
    "fields of other types": b'{"question_id": 1, "prompt": 2, "text": 3, "answer_id": 4, "model_id": 5, '
    b'"metadata": {"options": {}, "routing": {"experts": []}}}\n',
    "another tool's answer": b'{"question_id": 1, "prompt": "", "text": "", "answer_id": "", "model_id": "", '
    b'"metadata": {}}\n',
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_holds_something_else_is_not_touched(evaluation, content):
    evaluation.answers.write_bytes(content)
    assert_user_error(evaluation.run(), "answers.jsonl:1: not an answer that mova eval wrote; --overwrite begins anew")
    assert evaluation.answers.read_bytes() == content
    assert evaluation.runtime.asked == []
    assert evaluation.run("--overwrite").status == 0
    assert len(evaluation.records()) == 5


def test_a_torn_line_in_the_middle_is_not_cut(evaluation):
    evaluation.run()
    lines = evaluation.answers.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2][:50] + b"\n"
    evaluation.answers.write_bytes(b"".join(lines))
    assert_user_error(evaluation.run(), "answers.jsonl:3: not an answer that mova eval wrote")
    assert evaluation.answers.read_bytes() == b"".join(lines)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--model-id", "x"], "answers.jsonl:1: an answer of model 'bundle', not 'x'"),
        (["--max-new-tokens", 9], "answers.jsonl:1: answered with max_new_tokens 128, not 9"),
        (["--max-context", 1024], "answers.jsonl:1: answered with context 2048, not 1024"),
        (["--experts", "sam,vary"], "answers.jsonl:1: answered with experts not given, not vary,sam"),
        (["--experts", "none"], "answers.jsonl:1: answered with experts not given, not none"),
        (["--backend", "openvino"], "answers.jsonl:1: answered with backend ort, not openvino"),
        (["--backend", "ort,adapter=cuda"], "answers.jsonl:1: answered with backend ort, not ort,adapter=cuda"),
        (["--precision", "int4"], "answers.jsonl:1: answered with precision fp32, not int4"),
        (["--shard", "1/2"], "answers.jsonl:1: answers a question (id 0) that is not among those asked"),
    ],
)
def test_answers_of_another_run_are_not_touched(evaluation, more, why):
    evaluation.run()
    before = evaluation.answers.read_bytes()
    assert_user_error(evaluation.run(*more), f"{why}; --overwrite begins anew")
    assert evaluation.answers.read_bytes() == before
    assert evaluation.run(*more, "--overwrite").status == 0


def test_answers_of_another_checkpoint_are_not_touched(evaluation):
    evaluation.run()
    evaluation.runtime.checkpoint = "two"
    assert_user_error(evaluation.run(), "answers.jsonl:1: answered with checkpoint ")


def test_answers_to_other_questions_are_not_touched(evaluation):
    evaluation.run()
    evaluation.write(*some_questions()[:2], *some_questions()[3:])
    assert_user_error(evaluation.run(), "answers.jsonl:3: answers a question (id 2) that is not among those asked")
    evaluation.write(question(0, "b.png", "Question 0?"), *some_questions()[1:])
    assert_user_error(evaluation.run(), "answers.jsonl:1: answers a question (id 0)")


def test_an_answer_that_stands_twice(evaluation):
    evaluation.run()
    evaluation.answers.write_bytes(evaluation.answers.read_bytes() * 2)
    assert_user_error(evaluation.run(), "answers.jsonl:6: the same answer as --answers")


def test_experts_in_another_order_are_the_same_run(evaluation):
    evaluation.run("--experts", "sam,vary")
    assert evaluation.run("--experts", "vary,sam").status == 0


def test_a_file_that_another_process_writes(evaluation):
    evaluation.run()
    before = evaluation.answers.read_bytes()
    with evaluation.answers.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for more in ([], ["--overwrite"]):
            assert_user_error(evaluation.run(*more), "answers.jsonl: another process writes it")
    assert evaluation.answers.read_bytes() == before
    assert evaluation.run().status == 0


def test_a_file_that_was_replaced_before_it_was_locked_is_opened_again(evaluation, monkeypatch):
    """Another process put its answers in order between this one's opening and locking: that file is no longer there."""
    evaluation.run()
    before, flock, met = evaluation.answers.read_bytes(), fcntl.flock, []

    def replace_first(descriptor, operation):
        if not met:
            copy = evaluation.folder / "copy"
            copy.write_bytes(before)
            copy.replace(evaluation.answers)
        met.append(descriptor)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", replace_first)
    evaluation.write(*some_questions(6))
    assert evaluation.run().status == 0
    assert len(met) == 2
    assert len(evaluation.records()) == 6


def test_a_full_disk_leaves_whole_lines(evaluation):
    evaluation.run()
    whole = evaluation.answers.read_bytes()
    evaluation.answers.unlink()
    with files_at_most(len(whole) // 2):
        done = evaluation.run()
    assert_user_error(done, "answers.jsonl: can't be written (File too large); its answers stay")
    left = evaluation.answers.read_bytes()
    assert whole.startswith(left)
    assert left.endswith(b"\n")
    assert 0 < left.count(b"\n") < 5
    assert evaluation.run().status == 0
    assert evaluation.answers.read_bytes() == whole


def test_each_answer_is_one_write_and_on_the_disk_before_the_next_question(evaluation, monkeypatch):
    events, write, fsync, answer = [], os.write, os.fsync, evaluation.runtime.answer
    monkeypatch.setattr(os, "write", lambda descriptor, data: events.append(bytes(data)) or write(descriptor, data))
    monkeypatch.setattr(os, "fsync", lambda descriptor: events.append("sync") or fsync(descriptor))
    monkeypatch.setattr(evaluation.runtime, "answer", lambda *given: events.append("ask") or answer(*given))
    evaluation.run()
    assert events[-15::3] == ["ask"] * 5
    assert events[-13::3] == ["sync"] * 5
    assert b"".join(events[-14::3]) == evaluation.answers.read_bytes()
    assert all(line.count(b"\n") == 1 for line in events[-14::3])


def test_a_full_disk_while_answers_are_put_in_order_loses_none(evaluation, monkeypatch):
    evaluation.runtime.errors = {"Question 1?": ImageError("gone")}
    evaluation.run()
    evaluation.runtime.errors = {}

    def fails(self, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", fails)
        assert_user_error(evaluation.run(), "answers.jsonl: can't be written (No space left on device)")
    assert [record["question_id"] for record in evaluation.records()] == [0, 2, 3, 4, 1]
    assert not list(evaluation.folder.glob(".*"))
    assert evaluation.run().status == 0
    assert [record["question_id"] for record in evaluation.records()] == [0, 1, 2, 3, 4]


def test_what_a_kill_left_beside_the_file_is_removed(evaluation):
    (evaluation.folder / ".answers.jsonl.partial").write_text("half")
    assert evaluation.run().status == 0
    assert not list(evaluation.folder.glob(".*"))


def test_putting_in_order_keeps_permissions_and_a_link(evaluation):
    target = evaluation.folder / "images" / "elsewhere.jsonl"
    evaluation.answers.symlink_to(target)
    evaluation.runtime.errors = {"Question 1?": ImageError("gone")}
    evaluation.run()
    target.chmod(0o640)
    evaluation.runtime.errors = {}
    evaluation.run()
    assert evaluation.answers.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert [record["question_id"] for record in evaluation.records()] == [0, 1, 2, 3, 4]


def test_what_split_cuts_off():
    assert split(b"") == ([], b"")
    assert split(b"a\nb\n") == ([b"a", b"b"], b"")
    assert split(b"a\nb") == ([b"a", b"b"], b""), "not an answer's beginning: somebody else's"
    assert split(b'a\n{"ques') == ([b"a"], b'{"ques')
    assert split(b'a\n{"question_id": 1, "\n') == ([b"a"], b'{"question_id": 1, "\n')
