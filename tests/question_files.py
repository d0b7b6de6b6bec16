"""Question files, and `mova eval` over them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line import Done, MovaCommand
from fake_runtime import FakeRuntime

IMAGES = ("a.png", "b.png", "c.png")


def question(number: int | str, image: str = "a.png", text: str = "Why?", **more: Any) -> dict[str, Any]:
    """A question as published files have it."""
    return {"question_id": number, "image": image, "text": text, **more}


def some_questions(count: int = 5) -> list[dict[str, Any]]:
    """Of different texts, about three images."""
    return [question(number, IMAGES[number % 3], f"Question {number}?") for number in range(count)]


@dataclass
class Evaluation:
    """A folder with questions, images and answers, and the command to run over it."""

    folder: Path
    command: MovaCommand
    runtime: FakeRuntime

    @property
    def answers(self) -> Path:
        return self.folder / "answers.jsonl"

    @property
    def file(self) -> Path:
        return self.folder / "questions.jsonl"

    def write(self, *lines: Any) -> None:
        """Make the question file; a line that is text stands in it as it is."""
        self.file.write_text(as_lines(lines), encoding="utf-8")

    def arguments(self, *more: object, answers: Path | None = None) -> tuple[str, ...]:
        given = ("--questions", self.file, "--images", self.folder / "images", "--answers", answers or self.answers)
        return ("eval", *map(str, (self.folder / "bundle", *given, *more)))

    def run(self, *more: object, answers: Path | None = None) -> Done:
        return self.command(*self.arguments(*more, answers=answers))

    def records(self, answers: Path | None = None) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (answers or self.answers).read_text(encoding="utf-8").splitlines()]


def as_lines(lines: Iterable[Any]) -> str:
    """JSON lines; what is text already is a line."""
    return "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
