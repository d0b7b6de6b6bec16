"""The `mova` command as a test calls it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Done:
    """What a command left: its exit status and both of its streams."""

    status: int
    output: str
    error: str

    @property
    def error_lines(self) -> list[str]:
        return self.error.splitlines()


@pytest.fixture
def mova_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """mova_command(*arguments): run `mova` in this process; an exception that leaves it fails the test."""
    from mova_export.cli import main

    def call(*arguments: object) -> Done:
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as leaving:  # argparse leaves so
            status = leaving.code if isinstance(leaving.code, int) else 1
        out, err = capsys.readouterr()
        return Done(status, out, err)

    return call
