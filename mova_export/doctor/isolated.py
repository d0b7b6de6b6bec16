"""Questions asked in processes of their own: a library that crashes or hangs when it is imported takes nobody along."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

PATIENCE = 120.0
"""Seconds that all questions together may take: the first import after a boot reads libraries from the disk."""

_LONGEST = 200
"""Characters of what went wrong that are told."""

_MARK = "mova-doctor:"
"""What an answer begins with, for libraries print, too."""


@dataclass(frozen=True)
class Reply:
    """`found` is what a question gave, or None, and then `trouble` says in a line what happened."""

    found: Any = None
    trouble: str = ""


class Question:
    """A Python program in a process of its own. A context manager: at its end the process is gone."""

    def __init__(self, code: str, *arguments: str) -> None:
        """Start it. What it hands to `answer(…)`, as JSON, is its reply; `sys.argv[1:]` are the arguments."""
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROLOGUE + code, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._errors,
            start_new_session=True,
        )

    def __enter__(self) -> Question:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._output.close()
        self._errors.close()

    def reply(self, until: float) -> Reply:
        """What it gave by then, in `time.monotonic`'s seconds."""
        begun = time.monotonic()
        try:
            status = self._process.wait(max(until - begun, 0.0))
        except subprocess.TimeoutExpired:
            return Reply(trouble="hangs: it did not answer in time")
        for line in reversed(_read(self._output).splitlines()):
            if line.startswith(_MARK):
                with contextlib.suppress(ValueError):
                    return Reply(json.loads(line[len(_MARK) :]))
        said = [line for line in _read(self._errors).splitlines() if line.strip()]
        last = " ".join(said[-1].split())[:_LONGEST] if said else "no reason given"
        return Reply(trouble=f"ended by {signal.Signals(-status).name}" if status < 0 else last)


def ask(questions: Mapping[str, Sequence[str]], patience: float = PATIENCE) -> dict[str, Reply]:
    """Ask all at once.

    Args:
        questions: by name, each a program and its arguments; see `Question`.
        patience: seconds for all of them.
    """
    until = time.monotonic() + patience
    replies: dict[str, Reply] = {}
    with contextlib.ExitStack() as stack:
        asked: dict[str, Question] = {}
        for name, (code, *arguments) in questions.items():
            try:
                asked[name] = stack.enter_context(Question(code, *arguments))
            except OSError as error:
                replies[name] = Reply(trouble=f"no process could be started ({error.strerror})")
        replies.update({name: question.reply(until) for name, question in asked.items()})
    return {name: replies[name] for name in questions}


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", errors="replace")


_PROLOGUE = f"""
import json as _json, sys
def answer(found):
    sys.stdout.flush()
    print("\\n{_MARK}" + _json.dumps(found), flush=True)
"""
