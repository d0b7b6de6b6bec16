"""A share of the questions: several processes or machines answer one file."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mova_export.evaluation.errors import EvaluationError


@dataclass(frozen=True)
class Shard:
    """The questions whose index leaves `number` when divided by `count`."""

    number: int = 0
    count: int = 1

    @classmethod
    def read(cls, text: str) -> Shard:
        """A shard as the command line has it, such as 0/4.

        Raises:
            EvaluationError: it is none.
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if not found or int(found[1]) >= int(found[2]):
            raise EvaluationError(f"--shard {text}: expected K/N with K from 0 to N-1, such as 0/4")
        return cls(int(found[1]), int(found[2]))

    def has(self, index: int) -> bool:
        """Whether a question, counted from 0, falls to it."""
        return index % self.count == self.number

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
