"""What `mova eval` writes, tells and counts, and what the next run makes of it; the runtime answers at once."""

import json

import pytest

from mova_runtime import (
    BackendError,
    ImageError,
    MemoryBudgetError,
    MovaError,
    OutOfMemoryError,
    ParityError,
    QuestionError,
)
from question_files import question, some_questions

FIELDS = ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]


def test_an_answers_line_has_the_published_fields(evaluation):
    evaluation.write(question("v1_0", "b.png", "What is\nthis ü?", category="x"))
    assert evaluation.run("--model-id", "mova-8b").status == 0
    assert evaluation.answers.read_bytes().endswith(b"}\n")
    (record,) = evaluation.records()
    assert list(record) == FIELDS
    assert (record["question_id"], record["prompt"], record["model_id"]) == ("v1_0", "What is\nthis ü?", "mova-8b")
    assert record["text"].startswith("number "), "no blanks at the ends"
    assert not record["text"].endswith((" ", "\n"))
    metadata = record["metadata"]
    assert metadata["routing"]["text"] == "A,B"
    assert len(metadata["routing"]["experts"]) == 2
    assert (metadata["finish"], metadata["prompt_tokens"]) == ("stop", 100)
    assert {key: value for key, value in metadata["options"].items() if key != "checkpoint"} == {
        "experts": None,
        "max_new_tokens": 128,
        "context": 2048,
        "backend": "ort",
        "precision": "fp32",
    }


def test_ids_keep_their_types_and_answers_the_questions_order(evaluation):
    ids = [3, "3", -1, "a", 2]
    evaluation.write(*[question(one, text=f"{place}?") for place, one in enumerate(ids)])
    assert evaluation.run().status == 0
    assert [record["question_id"] for record in evaluation.records()] == ids
    assert evaluation.runtime.asked == ["0?", "1?", "2?", "3?", "4?"]
    assert evaluation.runtime.images == [evaluation.folder / "images/a.png"] * 5


def test_the_folders_name_is_the_models_where_none_is_given(evaluation):
    evaluation.run()
    assert {record["model_id"] for record in evaluation.records()} == {"bundle"}


def test_answer_ids_are_unique_and_the_same_in_every_run(evaluation):
    evaluation.write(*[question(-1)] * 3, question(-1, "b.png"), question("-1"), question(-1, text="How?"))
    evaluation.run()
    first = evaluation.answers.read_bytes()
    assert len({record["answer_id"] for record in evaluation.records()}) == 6
    evaluation.answers.unlink()
    evaluation.run()
    assert evaluation.answers.read_bytes() == first
    evaluation.run("--model-id", "other", "--overwrite")
    assert not {record["answer_id"] for record in evaluation.records()} & {
        json.loads(line)["answer_id"] for line in first.splitlines()
    }


def test_a_second_run_asks_nothing(evaluation):
    assert evaluation.run().status == 0
    before, asked = evaluation.answers.read_bytes(), list(evaluation.runtime.asked)
    done = evaluation.run()
    assert (done.status, done.error) == (0, "")
    assert "5 of 5 questions answered: 0 by this run, 5 before it" in done.output
    assert evaluation.runtime.asked == asked
    assert evaluation.answers.read_bytes() == before


def test_what_cannot_be_answered_is_told_counted_and_passed_over(evaluation):
    evaluation.write(
        question(0), question(1, "absent.png"), "", "no JSON", question(2, text="long?"), question(3, "../up.png"),
        question(4, text="much?"), question(5, text="more?"), question(6),
    )  # fmt: skip
    evaluation.runtime.errors = {
        "long?": QuestionError("the question is too long"),
        "much?": MemoryBudgetError("the budget is 1 GiB"),
        "more?": OutOfMemoryError("memory ran out"),
    }
    done = evaluation.run("--json", evaluation.folder / "summary.json")
    assert done.status == 1
    file = evaluation.file
    assert done.error_lines == [
        f"{file}:2: {evaluation.folder}/images/absent.png: can't be opened (No such file or directory)",
        f"{file}:4: not JSON",
        f"{file}:5: the question is too long",
        f"{file}:6: image '../up.png' is not inside the folder of images",
        f"{file}:7: the budget is 1 GiB",
        f"{file}:8: memory ran out",
        "mova: 6 of 8 questions without an answer",
    ]
    assert [record["question_id"] for record in evaluation.records()] == [0, 6]
    summary = json.loads((evaluation.folder / "summary.json").read_text())
    assert summary["failed"] == {"image": 1, "line": 2, "question": 1, "memory": 2}
    assert summary["failures"][0] == {
        "line": 2,
        "kind": "image",
        "why": f"{evaluation.folder}/images/absent.png: can't be opened (No such file or directory)",
    }
    assert "not answered, and why: line 2, memory 2, image 1, question 1" in done.output


@pytest.mark.parametrize(
    "error", [MemoryBudgetError("engine 'llm' needs 6 GiB; the budget is 1 GiB", ["llm"]), MovaError("too short")]
)
def test_what_would_meet_every_question_ends_the_run(evaluation, error):
    evaluation.write(*[question(number, text=f"Question {number}?") for number in range(5)])
    evaluation.runtime.errors = {"Question 1?": error}
    done = evaluation.run()
    assert (done.status, done.error_lines[-1]) == (2, f"mova: {error}")
    assert len(evaluation.runtime.asked) == 2


def test_an_expert_that_does_not_fit_is_one_questions(evaluation):
    evaluation.write(question(0, text="Question 0?"), question(1))
    evaluation.runtime.errors = {"Question 0?": MemoryBudgetError("engine 'sam' needs 6 GiB", ["sam"])}
    assert evaluation.run().status == 1
    assert [record["question_id"] for record in evaluation.records()] == [1]


def test_what_failed_is_tried_again_and_takes_its_place(evaluation):
    whole = evaluation.folder / "whole.jsonl"
    assert evaluation.run(answers=whole).status == 0
    evaluation.runtime.errors = {"Question 1?": ImageError("gone"), "Question 3?": ImageError("gone")}
    assert evaluation.run().status == 1
    assert [record["question_id"] for record in evaluation.records()] == [0, 2, 4]
    evaluation.runtime.errors = {"Question 1?": ImageError("gone")}
    evaluation.runtime.asked.clear()
    done = evaluation.run()
    assert done.status == 1
    assert done.error_lines == [f"{evaluation.file}:2: gone", "mova: 1 of 5 questions without an answer"]
    assert evaluation.runtime.asked == ["Question 1?", "Question 3?"]
    assert [record["question_id"] for record in evaluation.records()] == [0, 2, 3, 4]
    evaluation.runtime.errors = {}
    assert evaluation.run().status == 0
    assert evaluation.answers.read_bytes() == whole.read_bytes()
    assert {path.name for path in evaluation.folder.iterdir()} == {
        "answers.jsonl", "whole.jsonl", "questions.jsonl", "images",
    }  # fmt: skip


@pytest.mark.parametrize(("error", "status"), [(BackendError("the engine fell over"), 2), (ParityError("wrong"), 1)])
def test_an_engine_that_fails_ends_the_run_and_keeps_its_answers(evaluation, error, status):
    evaluation.runtime.errors = {"Question 2?": error}
    done = evaluation.run()
    assert (done.status, done.error_lines) == (status, [f"mova: {error}"])
    assert [record["question_id"] for record in evaluation.records()] == [0, 1]
    evaluation.runtime.errors = {}
    assert evaluation.run().status == 0
    assert [record["question_id"] for record in evaluation.records()] == [0, 1, 2, 3, 4]


def test_questions_that_were_added_are_answered(evaluation):
    evaluation.run()
    evaluation.write(question("new"), *some_questions(6))
    assert evaluation.run().status == 0
    assert [record["question_id"] for record in evaluation.records()] == ["new", 0, 1, 2, 3, 4, 5]


def test_a_shard_answers_its_share(evaluation):
    for number in range(3):
        done = evaluation.run("--shard", f"{number}/3", answers=evaluation.folder / f"{number}.jsonl")
        assert done.status == 0
    ids = [[record["question_id"] for record in evaluation.records(evaluation.folder / f"{i}.jsonl")] for i in range(3)]
    assert ids == [[0, 3], [1, 4], [2]]


def test_a_shard_that_nothing_falls_to(evaluation):
    done = evaluation.run("--shard", "7/8")
    assert (done.status, done.error) == (0, "")
    assert evaluation.answers.read_bytes() == b""


def test_a_shards_bad_lines_are_its_own(evaluation):
    evaluation.write(question(0), "bad", question(2), "bad")
    assert evaluation.run("--shard", "0/2").status == 0
    done = evaluation.run("--shard", "1/2", answers=evaluation.folder / "1.jsonl")
    assert done.error_lines[-1] == "mova: 2 of 2 questions without an answer"


def test_options_reach_the_runtime(evaluation):
    evaluation.run(
        "--experts", "sam, vary", "--max-new-tokens", 2, "--backend", "auto,adapter=cuda", "--precision", "bf16",
        "--threads", 3, "--memory-budget", "6GiB", "--device-memory-budget", "2GiB",
        "--max-context", 1024,
    )  # fmt: skip
    assert evaluation.runtime.opened == {
        "path": evaluation.folder / "bundle", "backend": "auto,adapter=cuda", "precision": "bf16", "threads": 3,
        "memory_budget": "6GiB", "device_memory_budget": "2GiB",
        "max_context": 1024,
    }  # fmt: skip
    for record in evaluation.records():
        assert record["metadata"]["routing"] == {"experts": ["vary", "sam"], "text": ""}
        options = record["metadata"]["options"]
        assert (options["experts"], options["max_new_tokens"]) == (["vary", "sam"], 2)
        assert (options["backend"], options["precision"]) == ("ort,adapter=cuda", "bf16")


def test_the_summary_tells_this_run_and_what_was_there(evaluation):
    evaluation.runtime.errors = {"Question 4?": ImageError("gone")}
    evaluation.run("--experts", "sam")
    evaluation.runtime.errors = {}
    done = evaluation.run("--experts", "sam", "--json", evaluation.folder / "summary.json")
    summary = json.loads((evaluation.folder / "summary.json").read_text())
    assert (summary["format"], summary["version"], summary["shard"]) == ("mova-eval", 1, "0/1")
    assert summary["answered"] == {"before": 4, "now": 1}
    assert (summary["questions"], summary["failed"], summary["failures"]) == (5, {}, [])
    assert summary["routes"] == [{"experts": ["sam"], "answers": 5}]
    assert summary["experts"] == {"sam": 5}
    assert summary["finish"] == {"stop": 1}
    assert [(stage["name"], stage["seconds"]) for stage in summary["stages"]] == [("base", 2.0)]
    assert summary["ahead"] == [{"name": "load sam", "seconds": 0.5}], "another thread's time is no share of this one's"
    assert (summary["tokens"], summary["prompt_tokens"]) == (3, 100)
    assert summary["cache"] == {"hits": 1, "misses": 2}
    assert summary["questions_a_minute"] > 0
    assert done.output.splitlines()[0] == "5 of 5 questions answered: 1 by this run, 4 before it"
    assert "feature cache: 1 found, 2 computed" in done.output


def test_routes_are_counted_by_set_and_by_expert(evaluation):
    evaluation.write(*some_questions(30))
    evaluation.run("--json", evaluation.folder / "summary.json")
    summary = json.loads((evaluation.folder / "summary.json").read_text())
    chosen = [tuple(record["metadata"]["routing"]["experts"]) for record in evaluation.records()]
    assert {tuple(route["experts"]): route["answers"] for route in summary["routes"]} == {
        route: chosen.count(route) for route in set(chosen)
    }
    assert summary["experts"]["vary"] == sum("vary" in route for route in chosen)
