"""What a command did, and whether it told the user of a mistake as it should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Done:
    """Its exit status, and both of its streams."""

    status: int
    output: str
    error: str

    @property
    def error_lines(self) -> list[str]:
        """Standard error, line by line."""
        return self.error.splitlines()


MovaCommand = Callable[..., Done]


def assert_user_error(done: Done, text: str) -> None:
    """The user was told of a mistake of theirs, in one line that says `text`."""
    assert done.status == 2, done.error
    (line,) = done.error_lines
    assert line.startswith("mova")
    assert text in line
