"""The lines of answers files, held against the questions and the run that they must be of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mova_export.evaluation.errors import EvaluationError
from mova_export.evaluation.questions import Question
from mova_export.evaluation.record import Record, Run, answer_id, is_torn, read


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """A file's lines without their ends, and what a kill in the middle of a write left at its end, if it did.

    That is a last line that has no end, or is no JSON, as far as it may have become an answer: nothing else is cut off.
    """
    *lines, tail = data.split(b"\n")
    if not tail:
        return (lines[:-1], lines[-1] + b"\n") if lines and is_torn(lines[-1]) else (lines, b"")
    return (lines, tail) if is_torn(tail) or read(tail) else ([*lines, tail], b"")


class Kept:
    """Which questions have an answer, each once and all of one run.

    indices: the questions' indices, as their answers were read; routes: how often each set of experts was used.
    """

    def __init__(self, questions: Sequence[Question], run: Run | None = None, advice: str = "") -> None:
        """Begin with none.

        Args:
            questions: that there may be answers to.
            run: whose answers they must be; None takes it from the first that is read.
            advice: what ends the message where they are not.
        """
        self.indices: list[int] = []
        self.routes: Counter[tuple[str, ...]] = Counter()
        self._questions = questions
        self._advice = advice
        self._places: dict[int, str] = {}
        self._known: dict[str, int] = {}
        self._model_id = ""
        self._options: dict[str, Any] = {}
        if run:
            self._expect(run.model_id, run.options.to_json())

    def read(self, lines: Sequence[bytes], name: str) -> None:
        """Take in a file's lines; `name` is the file's in messages.

        Raises:
            EvaluationError: a line is no answer, of another run, of no question, or answers one a second time.
        """
        for number, line in enumerate(lines, 1):
            place = f"{name}:{number}"
            try:
                record, index = self._check(read(line))
            except ValueError as error:
                raise EvaluationError(f"{place}: {error}{self._advice}") from None
            self._places[index] = place
            self.indices.append(index)
            self.routes[record.experts] += 1

    def _expect(self, model_id: str, options: dict[str, Any]) -> None:
        self._model_id, self._options = model_id, options
        self._known = {answer_id(model_id, question): question.index for question in self._questions}

    def _check(self, record: Record | None) -> tuple[Record, int]:
        """A line's record, and the index of its question. Raises ValueError with why it has no place here."""
        if record is None:
            raise ValueError("not an answer that mova eval wrote")
        if not self._known:
            self._expect(record.model_id, record.options)
        if record.model_id != self._model_id:
            raise ValueError(f"an answer of model {record.model_id!r}, not {self._model_id!r}")
        for name in {**self._options, **record.options}:
            was, wanted = record.options.get(name), self._options.get(name)
            if was != wanted:
                raise ValueError(f"answered with {name} {_said(was)}, not {_said(wanted)}")
        index = self._known.get(record.answer_id)
        if index is None:
            raise ValueError(f"answers a question (id {record.question_id!r}) that is not among those asked")
        if index in self._places:
            raise ValueError(f"the same answer as {self._places[index]}")
        return record, index


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return "not given" if value is None else str(value)
