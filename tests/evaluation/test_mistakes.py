"""A user's mistakes: one line, exit status 2, and nothing is made or changed."""

import os
from pathlib import Path

import pytest

from command_line import assert_user_error

ABSENT = "/absent/folder/file"


def names(evaluation):
    return {path.name for path in evaluation.folder.iterdir()}


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--questions", ABSENT, f"--questions {ABSENT}: can't be read (No such file or directory)"),
        ("--questions", "{folder}/images", "images: can't be read (Is a directory)"),
        ("--questions", "{folder}/images/a.png", "a.png: no question in it (line 1: not JSON)"),
        ("--images", ABSENT, f"--images {ABSENT}: no such folder"),
        ("--images", "{folder}/questions.jsonl", "questions.jsonl: no such folder"),
        ("--answers", ABSENT, f"--answers {ABSENT}: its folder does not exist"),
        ("--answers", "{folder}/images", "images: is a folder"),
        ("--answers", "{folder}/questions.jsonl", "questions.jsonl: is the file of --questions, too"),
        ("--answers", "{folder}/images/../questions.jsonl", "questions.jsonl: is the file of --questions, too"),
        ("--answers", "/dev/null", "--answers /dev/null: not a file"),
        ("--json", ABSENT, f"--json {ABSENT}: its folder does not exist"),
        ("--json", "{folder}/images", "images: is a folder"),
        ("--json", "{folder}/questions.jsonl", "questions.jsonl: is the file of --questions, too"),
        ("--json", "{folder}/answers.jsonl", "answers.jsonl: is the file of --answers, too"),
        ("--shard", "4/4", "--shard 4/4: expected K/N"),
        ("--shard", "", "expected K/N"),
        ("--experts", "sam,clip", "unknown expert 'clip'"),
        ("--experts", "sam,sam", "stands twice"),
        ("--experts", "", "names nothing"),
        ("--max-new-tokens", "0", "--max-new-tokens 0: expected a positive whole number"),
        ("--max-new-tokens", "many", "invalid int value: 'many'"),
        ("--model-id", " ", "--model-id is empty"),
        ("--colour", "red", "unrecognized arguments"),
    ],
)
def test_a_mistake_in_an_option(evaluation, option, value, word):
    before = names(evaluation)
    done = evaluation.run(f"{option}={value.format(folder=evaluation.folder)}")
    assert_user_error(done, word)
    assert done.output == ""
    assert evaluation.runtime.asked == []
    assert names(evaluation) == before


@pytest.mark.parametrize("missing", ["--questions", "--images", "--answers"])
def test_an_option_that_is_missing(evaluation, missing):
    arguments = list(evaluation.arguments())
    at = arguments.index(missing)
    assert_user_error(evaluation.command(*arguments[:at], *arguments[at + 2 :]), missing)


def test_a_bundle_that_is_missing(evaluation):
    arguments = evaluation.arguments()
    assert_user_error(evaluation.command(arguments[0], *arguments[2:]), "BUNDLE is missing (see mova eval --help)")


@pytest.mark.parametrize("path", ["/absent", "/"])
def test_a_folder_that_is_no_bundle(evaluation, path, monkeypatch):
    from mova_runtime.runtime import Runtime

    monkeypatch.setattr("mova_runtime.open", lambda path, **_: Runtime(path))
    arguments = evaluation.arguments()
    assert_user_error(evaluation.command(arguments[0], path, *arguments[2:]), f"{path}: no")
    assert not evaluation.answers.exists()


def test_an_answers_file_that_may_not_be_written(evaluation, monkeypatch):
    really = os.open

    def refuses(path, *more, **named):
        if Path(path) == evaluation.answers:
            raise PermissionError(13, "Permission denied")
        return really(path, *more, **named)

    monkeypatch.setattr(os, "open", refuses)
    assert_user_error(evaluation.run(), "answers.jsonl: can't be written (Permission denied)")


def test_the_summary_that_cannot_be_written_costs_no_answer(evaluation, monkeypatch):
    def refuses(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", refuses)
        done = evaluation.run("--json", evaluation.folder / "summary.json")
    assert_user_error(done, "summary.json: can't be written (Permission denied)")
    assert len(evaluation.records()) == 5


def test_help(mova_command):
    done = mova_command("eval", "--help")
    assert done.status == 0
    assert "mova eval --join FILE" in done.output
