"""Question files: JSON lines with `question_id`, `image`, and `text` or `question`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from mova_export.evaluation.errors import EvaluationError
from mova_export.evaluation.shard import Shard

_BOM = "\ufeff"
_TEXT = ("text", "question")
"""Fields that hold what is asked: the first that is there."""


@dataclass(frozen=True)
class Question:
    """A question as its file has it.

    line: its number in the file, from 1; index: among the lines that hold anything, from 0; id: whole number or text,
    as it came; image: a path below the folder of images; text: what is asked; repeat: how many questions of the same
    id, image and text stand before it. Published files have ids that say little: -1 throughout, or one for two.
    """

    line: int
    index: int
    id: int | str
    image: str
    text: str
    repeat: int = 0


@dataclass(frozen=True)
class BadLine:
    """A line that holds no question, and why. `line` and `index` as of a question."""

    line: int
    index: int
    why: str


@dataclass(frozen=True)
class QuestionFile:
    """What a file, or a shard of it, holds, in its order."""

    path: Path
    questions: tuple[Question, ...]
    bad: tuple[BadLine, ...]

    @property
    def lines(self) -> tuple[Question | BadLine, ...]:
        """All of it, in the file's order."""
        lines: list[Question | BadLine] = [*self.questions, *self.bad]
        return tuple(sorted(lines, key=lambda line: line.index))

    @classmethod
    def read(cls, path: Path) -> QuestionFile:
        """Read it; lines without anything on them are passed over.

        Raises:
            EvaluationError: it can't be read, or holds no question at all.
        """
        try:
            lines = path.read_bytes().split(b"\n")  # not splitlines: a text may hold other separators
        except OSError as error:
            raise EvaluationError(f"--questions {path}: can't be read ({error.strerror})") from None
        questions: list[Question] = []
        bad: list[BadLine] = []
        seen: Counter[tuple[int | str, str, str]] = Counter()
        filled = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
        for index, (number, line) in enumerate(filled):
            try:
                question = _question(line, number, index)
            except ValueError as error:
                bad.append(BadLine(number, index, str(error)))
                continue
            same = (question.id, question.image, question.text)
            questions.append(replace(question, repeat=seen[same]))
            seen[same] += 1
        if not questions:
            why = f" (line {bad[0].line}: {bad[0].why})" if bad else ""
            raise EvaluationError(f"--questions {path}: no question in it{why}")
        return cls(path, tuple(questions), tuple(bad))

    def shard(self, shard: Shard) -> QuestionFile:
        """The part that falls to a shard; may be nothing."""
        return QuestionFile(
            self.path,
            tuple(question for question in self.questions if shard.has(question.index)),
            tuple(line for line in self.bad if shard.has(line.index)),
        )


def _question(raw: bytes, number: int, index: int) -> Question:
    """A line's question. Raises ValueError with what is wrong with it."""
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    try:
        data = json.loads(line.removeprefix(_BOM))
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    named = next((name for name in _TEXT if name in data), None)
    if missing := [name for name in ("question_id", "image") if name not in data]:
        raise ValueError(f"no {missing[0]!r}")
    if named is None:
        raise ValueError("neither 'text' nor 'question'")
    found = data["question_id"]
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise ValueError(f"'question_id' is {_kind(found)}, not a whole number or text")
    for name in ("image", named):
        if not isinstance(data[name], str):
            raise ValueError(f"{name!r} is {_kind(data[name])}, not text")
    return Question(number, index, found, _inside(data["image"]), data[named])


def _inside(image: str) -> str:
    """An image's path if it stays below the folder that it is relative to. Raises ValueError if not."""
    if not image.strip():
        raise ValueError("'image' is empty")
    path = PurePosixPath(image)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"image {image!r} is not inside the folder of images")
    return image


def _kind(value: Any) -> str:
    """A JSON value's type, as a user calls it."""
    names = {bool: "true or false", float: "a fraction", list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), "a number")
