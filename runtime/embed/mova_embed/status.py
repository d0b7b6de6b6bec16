"""What a call returns: a number for each family of errors. mova.h's list is made from this one."""

from __future__ import annotations

from enum import IntEnum

from mova_runtime import errors


class Status(IntEnum):
    """As `mova_status` in C; numbers are never given another meaning."""

    OK = 0
    INVALID_ARGUMENT = 1
    CLOSED = 2
    BUNDLE = 3
    BACKEND = 4
    OUT_OF_MEMORY = 5
    PARITY = 6
    IMAGE = 7
    QUESTION = 8
    EXPERT = 9
    MEMORY_BUDGET = 10
    CANCELLED = 11
    PYTHON = 12
    INTERNAL = 13


MEANINGS = {
    Status.OK: "done",
    Status.INVALID_ARGUMENT: "a NULL where none may be, a number out of bounds, text that is not UTF-8, or no handle",
    Status.CLOSED: "the handle was closed or released before, or is closed by another thread meanwhile",
    Status.BUNDLE: "the folder is not a bundle, lacks a part, is damaged, or of a newer format",
    Status.BACKEND: "a backend or precision is unknown, not installed, or failed",
    Status.OUT_OF_MEMORY: "memory ran out, of the host or of the GPU",
    Status.PARITY: "an engine computes something other than torch did",
    Status.IMAGE: "the image can't be used: its sizes, its stride, its format",
    Status.QUESTION: "the question is empty or too long, or how it is to be answered makes no sense",
    Status.EXPERT: "an expert is unknown, or named twice",
    Status.MEMORY_BUDGET: "what the call needs can't fit the memory budget, or a budget is not a size",
    Status.CANCELLED: "the callback, or whoever set `cancel`, ended the answer",
    Status.PYTHON: "Python could not be started, or can't be used in this process (after fork)",
    Status.INTERNAL: "a mistake of this library",
}

_FAMILIES: tuple[tuple[type[BaseException], Status], ...] = (
    (errors.BundleError, Status.BUNDLE),
    (errors.OutOfMemoryError, Status.OUT_OF_MEMORY),
    (errors.ParityError, Status.PARITY),
    (errors.BackendError, Status.BACKEND),
    (errors.ImageError, Status.IMAGE),
    (errors.QuestionError, Status.QUESTION),
    (errors.ExpertError, Status.EXPERT),
    (errors.MemoryBudgetError, Status.MEMORY_BUDGET),
    (errors.MovaError, Status.INVALID_ARGUMENT),
    (MemoryError, Status.OUT_OF_MEMORY),
)
"""The first that fits counts."""


class RefusedError(Exception):
    """A call that the library itself refuses."""

    def __init__(self, status: Status, text: str) -> None:
        """`text`: one line."""
        super().__init__(text)
        self.status = status


def status_of(error: BaseException) -> Status:
    """What C is told of an exception."""
    if isinstance(error, RefusedError):
        return error.status
    return next((status for kind, status in _FAMILIES if isinstance(error, kind)), Status.INTERNAL)


def text_of(error: BaseException) -> str:
    """One line about an exception; an unexpected one with its type."""
    text = " ".join(str(error).split())
    if isinstance(error, RefusedError | errors.MovaError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
