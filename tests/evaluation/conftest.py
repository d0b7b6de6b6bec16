"""`mova eval` over a runtime that answers at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import MovaCommand
from fake_runtime import FakeRuntime
from question_files import IMAGES, Evaluation, some_questions


@pytest.fixture
def evaluation(tmp_path: Path, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    """Five questions about three images."""
    (tmp_path / "images").mkdir()
    for name in IMAGES:
        (tmp_path / "images" / name).write_bytes(b"an image")
    runtime = FakeRuntime()
    monkeypatch.setattr("mova_runtime.open", runtime.open)
    made = Evaluation(tmp_path, mova_command, runtime)
    made.write(*some_questions())
    return made
