"""One answer as a line of the published format, and what makes an answer one of this run.

The format has no place for a header, so every line says which run it is of: by `model_id`, and by `metadata.options`.
Nothing in a line differs from run to run: the same answer is the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from mova_export.evaluation.questions import Question
from mova_runtime import Answer

HEAD = b'{"question_id": '
"""How every line begins."""

_ID_DIGITS = 32


@dataclass(frozen=True)
class Options:
    """What answers depend on besides the model's name and the question.

    experts: those that were asked for, None where the router chose; max_new_tokens: the longest answer; context: tokens
    of prompt and answer at most; backend: and what components have of their own, as in "ort,adapter=cuda:bf16";
    precision: of the others; checkpoint: the beginning of a hash of the checkpoint's hashes.
    """

    experts: tuple[str, ...] | None
    max_new_tokens: int
    context: int
    backend: str
    precision: str
    checkpoint: str

    def to_json(self) -> dict[str, Any]:
        """Plain data, as JSON gives it back."""
        return {**asdict(self), "experts": None if self.experts is None else list(self.experts)}


@dataclass(frozen=True)
class Run:
    """Whose answers a file holds."""

    model_id: str
    options: Options


@dataclass(frozen=True)
class Record:
    """What was read of a line: whose answer it is, to which question, and which experts it took."""

    answer_id: str
    question_id: int | str
    model_id: str
    options: dict[str, Any]
    experts: tuple[str, ...]


def answer_id(model_id: str, question: Question) -> str:
    """The same in every run, and unique within a file: hexadecimal, from a sha256 of model, question and repeat."""
    content = json.dumps([model_id, question.id, question.image, question.text, question.repeat])
    return hashlib.sha256(content.encode("ascii")).hexdigest()[:_ID_DIGITS]


def write(run: Run, question: Question, answer: Answer) -> bytes:
    """An answer's line, its end included. Its text has no blanks at its ends, as published scripts leave it."""
    line = {
        "question_id": question.id,
        "prompt": question.text,
        "text": answer.text.strip(),
        "answer_id": answer_id(run.model_id, question),
        "model_id": run.model_id,
        "metadata": {
            "routing": {"experts": list(answer.routing.experts), "text": answer.routing.text},
            "finish": answer.stats.finish,
            "prompt_tokens": answer.stats.prompt_tokens,
            "options": run.options.to_json(),
        },
    }
    return json.dumps(line).encode("ascii") + b"\n"


def read(line: bytes) -> Record | None:
    """What a line holds; None if it is not one that `write` made."""
    try:
        data = json.loads(line)
        metadata = data["metadata"]
        record = Record(
            answer_id=data["answer_id"],
            question_id=data["question_id"],
            model_id=data["model_id"],
            options=metadata["options"],
            experts=tuple(metadata["routing"]["experts"]),
        )
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    texts = (record.answer_id, record.model_id, data.get("prompt"), data.get("text"), *record.experts)
    whole = all(isinstance(text, str) for text in texts) and isinstance(record.options, dict)
    return record if whole else None


def is_torn(piece: bytes) -> bool:
    """Whether a file's end is the beginning of an answer's line, and no more than that."""
    try:
        json.loads(piece)
    except (ValueError, RecursionError):
        begin = piece.rstrip(b"\0")  # after a power failure a file may be longer than what had reached the disk
        return begin.startswith(HEAD) or HEAD.startswith(begin)
    return False
