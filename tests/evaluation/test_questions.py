"""Question files, as they are published and as they go wrong."""

import json

import pytest

from mova_export.evaluation.errors import EvaluationError
from mova_export.evaluation.questions import QuestionFile
from mova_export.evaluation.shard import Shard

GOOD = {"question_id": 1, "image": "a.png", "text": "Why?"}


def read(tmp_path, *lines):
    file = tmp_path / "questions.jsonl"
    file.write_bytes(b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines))
    return QuestionFile.read(file)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"image": "v1_0.png", "text": "What is x?", "question_id": "v1_0"}, ("v1_0", "v1_0.png", "What is x?")),
        ({"image": "test/png/8127.png", "question": "Lowest?\nShort.", "question_id": -1, "answer": "23"},
         (-1, "test/png/8127.png", "Lowest?\nShort.")),
        ({"question_id": "code/0020.png", "image": "code/0020.png", "text": "Is it?", "category": "code"},
         ("code/0020.png", "code/0020.png", "Is it?")),
        ({"question_id": 0, "image": "a b/ü.jpg", "text": "größer\u2028als\x85", "question": "other"},
         (0, "a b/ü.jpg", "größer\u2028als\x85")),
        ({"question_id": "", "image": "./a..png", "text": ""}, ("", "./a..png", "")),
    ],
)  # fmt: skip
def test_published_forms(tmp_path, line, expected):
    (question,) = read(tmp_path, line).questions
    assert (question.id, question.image, question.text) == expected
    assert type(question.id) is type(expected[0])


def test_blank_lines_line_ends_and_byte_order_mark(tmp_path):
    line = json.dumps(GOOD).encode()
    file = read(tmp_path, b"\xef\xbb\xbf" + line + b"\r\n\n  \r\n", line + b"\r\n", line)
    assert [(one.line, one.index) for one in file.questions] == [(1, 0), (4, 1), (5, 2)]
    assert file.bad == ()


def test_unescaped_separators_do_not_end_a_line(tmp_path):
    file = read(tmp_path, '{"question_id": 1, "image": "a", "text": "one\u2028two\u0085"}\n'.encode())
    assert [one.text for one in file.questions] == ["one\u2028two\u0085"]


def without(name):
    return {key: value for key, value in GOOD.items() if key != name}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{\n", "not JSON"),
        (b"hello\n", "not JSON"),
        (b'{"question_id": 1, "image": "\xff"}\n', "not UTF-8"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        (b'{"question_id": ' + b"9" * 5000 + b"}\n", "not JSON"),
        ([GOOD], "not a JSON object"),
        ("text", "not a JSON object"),
        (without("question_id"), "no 'question_id'"),
        (without("image"), "no 'image'"),
        (without("text"), "neither 'text' nor 'question'"),
        ({**GOOD, "question_id": True}, "'question_id' is true or false, not a whole number or text"),
        ({**GOOD, "question_id": 1.5}, "'question_id' is a fraction, not a whole number or text"),
        ({**GOOD, "question_id": None}, "'question_id' is null, not a whole number or text"),
        ({**GOOD, "image": ["a.png"]}, "'image' is a list, not text"),
        ({**GOOD, "image": 3}, "'image' is a number, not text"),
        ({**GOOD, "image": ""}, "'image' is empty"),
        ({**GOOD, "text": {}}, "'text' is an object, not text"),
        ({**without("text"), "question": None}, "'question' is null, not text"),
        ({**GOOD, "image": "/etc/passwd"}, "image '/etc/passwd' is not inside the folder of images"),
        ({**GOOD, "image": "../a.png"}, "image '../a.png' is not inside the folder of images"),
        ({**GOOD, "image": "b/../../a.png"}, "image 'b/../../a.png' is not inside the folder of images"),
        ({**GOOD, "image": "b/.."}, "image 'b/..' is not inside the folder of images"),
    ],
)
def test_a_bad_line_is_told_and_the_others_stay(tmp_path, line, why):
    file = read(tmp_path, GOOD, line, GOOD)
    assert [one.line for one in file.questions] == [1, 3]
    assert [(bad.line, bad.index, bad.why) for bad in file.bad] == [(2, 1, why)]
    assert [one.line for one in file.lines] == [1, 2, 3]


def test_equal_questions_are_told_apart_by_their_count(tmp_path):
    other = {**GOOD, "image": "b.png"}
    file = read(tmp_path, GOOD, other, GOOD, {**GOOD, "question_id": "1"}, GOOD, other)
    assert [one.repeat for one in file.questions] == [0, 0, 1, 0, 2, 1]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no question in it"),
        (b"\n \n", "no question in it"),
        (b"[{}]\n", r"no question in it \(line 1: not a JSON object\)"),
        (b"\nno\nno\n", r"no question in it \(line 2: not JSON\)"),
    ],
)
def test_no_question_at_all(tmp_path, content, why):
    with pytest.raises(EvaluationError, match=f"--questions .*questions.jsonl: {why}$"):
        read(tmp_path, content)


def test_shards_are_all_of_it_and_nothing_twice(tmp_path):
    file = read(tmp_path, *[{**GOOD, "question_id": number} if number % 3 else b"bad\n" for number in range(11)])
    shards = [file.shard(Shard(number, 4)) for number in range(4)]
    assert [[one.index for one in shard.lines] for shard in shards] == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7]]
    assert [len(shard.bad) for shard in shards] == [1, 1, 1, 1]


def test_a_repeat_in_another_shard_counts(tmp_path):
    file = read(tmp_path, GOOD, GOOD, GOOD)
    assert [one.repeat for one in file.shard(Shard(1, 2)).questions] == [1]


@pytest.mark.parametrize("text", ["0/1", "3/4", "00/7"])
def test_a_shard(text):
    assert Shard.read(text).count == int(text[-1])


@pytest.mark.parametrize("text", ["", "1", "4/4", "-1/4", "0/0", "a/b", "1/2/3", "0/4 ", "０/4"])
def test_no_shard(text):
    with pytest.raises(EvaluationError, match="expected K/N with K from 0 to N-1"):
        Shard.read(text)
