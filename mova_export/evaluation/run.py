"""Question by question: asked, answered, written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Protocol

from mova_export.evaluation import record
from mova_export.evaluation.answers import AnswersFile
from mova_export.evaluation.progress import Progress
from mova_export.evaluation.questions import BadLine, Question, QuestionFile
from mova_export.evaluation.summary import Failure, Kind, Summary
from mova_runtime import Answer, ImageError, MemoryBudgetError, MovaError, OutOfMemoryError, QuestionError

_KINDS: tuple[tuple[type[MovaError], Kind], ...] = (
    (ImageError, "image"),
    (QuestionError, "question"),
    (MemoryBudgetError, "memory"),
    (OutOfMemoryError, "memory"),
)
"""Errors of one question: the next may do better. Any other, and of a budget as below, meets them all: the run ends."""

_ALWAYS = {"base", "adapter", "llm"}
"""Engines that every question takes: where one does not fit the budget even alone, no question has an answer."""


class StoppedError(Exception):
    """A signal ended the run. status: the process's, 128 and the signal's number."""

    def __init__(self, stop: KeyboardInterrupt | SystemExit, done: int, total: int) -> None:
        """`stop`: what the signal raised; questions that are answered, and all of them."""
        super().__init__(f"interrupted; {done} of {total} questions are answered, the same command goes on")
        self.status = stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 130


class Answerer(Protocol):
    """What of a runtime is used."""

    def answer(
        self, image: Path, question: str, experts: Sequence[str] | None = None, max_new_tokens: int = 128
    ) -> Answer:
        """See `mova_runtime.Runtime.answer`."""
        ...


def evaluate(
    runtime: Answerer, file: QuestionFile, images: Path, answers: AnswersFile, summary: Summary, progress: Progress
) -> None:
    """Answer what has no answer yet, in the file's order.

    Args:
        runtime: answers.
        file: the questions; its bad lines are told and counted.
        images: the folder that images' paths are relative to.
        answers: gets each answer as soon as it is there, and is put in order at the end.
        summary: counts what happens.
        progress: is told what happens.

    Raises:
        EvaluationError: an answer can't be written.
        MovaError: an engine can't be loaded or failed, for whichever question.
        StoppedError: the process was told to stop; each answer was written whole, or not at all.
    """
    there, begin = answers.answered, perf_counter()
    try:
        for one in file.lines:
            if one.index in there:
                continue
            failure = _answer(runtime, one, images, answers, summary)
            if failure:
                summary.failures.append(failure)
                progress.say(f"{file.path}:{failure.line}: {failure.why}")
            progress.step()
        answers.finish()
    except (KeyboardInterrupt, SystemExit) as stop:
        raise StoppedError(stop, answers.count, summary.total) from None
    finally:
        summary.seconds = perf_counter() - begin
        progress.end()


def _answer(
    runtime: Answerer, one: Question | BadLine, images: Path, answers: AnswersFile, summary: Summary
) -> Failure | None:
    """Answer one question; what was wrong if that can't be."""
    if isinstance(one, BadLine):
        return Failure(one.line, "line", one.why)
    options, start = summary.run.options, perf_counter()
    try:
        answer = runtime.answer(images / one.image, one.text, options.experts, options.max_new_tokens)
    except tuple(error for error, _ in _KINDS) as error:
        if isinstance(error, MemoryBudgetError) and _ALWAYS & set(error.alone):
            raise
        return Failure(one.line, _kind(error), str(error))
    seconds = perf_counter() - start
    answers.add(one, record.write(summary.run, one, answer))
    summary.add(answer, seconds)
    return None


def _kind(error: MovaError) -> Kind:
    return next(kind for type_of_error, kind in _KINDS if isinstance(error, type_of_error))
