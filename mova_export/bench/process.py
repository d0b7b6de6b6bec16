"""The handle of a process that measures: it may crash, be killed or hang, and the benchmark goes on."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import IO, Any

from mova_export.errors import WorkerError

PATIENCE = 3600.0
"""Seconds that a step may take unless told otherwise: at full size a load or a first run takes minutes."""

_COMMAND = (sys.executable, "-m", "mova_export.bench.worker")
_PIECE = 1 << 16


class Worker:
    """A process of its own, in a session of its own: an interrupt from the terminal reaches whoever waits for it.

    A context manager: at its end the process is gone.
    """

    def __init__(self, command: Sequence[str] = _COMMAND) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        self._rest = b""
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, do: str, *, patience: float = PATIENCE, **asked: Any) -> dict[str, Any]:
        """Have it take a step, and wait for what it found.

        Raises:
            WorkerError: it failed, ended or did not answer within `patience` seconds; one that did not answer is ended.
        """
        self.send(do, **asked)
        return self.receive(patience)

    def send(self, do: str, **asked: Any) -> None:
        """Have it take a step; `receive` its answer before the next."""
        assert self._process.stdin, "it is a pipe"
        with contextlib.suppress(BrokenPipeError):  # it ended: `receive` tells
            self._process.stdin.write(json.dumps({"do": do, **asked}).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self, patience: float = PATIENCE) -> dict[str, Any]:
        """The answer to what was sent. Raises like `ask`."""
        until = monotonic() + patience
        while b"\n" not in self._rest:
            assert self._process.stdout, "it is a pipe"
            left = until - monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                self._kill()
                raise WorkerError(f"no answer in {patience:.0f} s: its process was ended")
            piece = os.read(self._process.stdout.fileno(), _PIECE)
            if not piece:
                raise WorkerError(self._end())
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def close(self) -> None:
        """End it, whatever it does: it has nothing to put in order, and libraries take their time to go."""
        self._kill()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):  # what it was not sent yet
                assert pipe, "it is a pipe"
                pipe.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # with a compiler that it may have started
        self._process.wait()

    def _end(self) -> str:
        """How it ended, and the last that it said."""
        status = self._process.wait()
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        if status == -signal.SIGKILL:
            how += ", as where memory runs out"
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", errors="replace").strip().splitlines()
        return f"its process {how}" + (f": {said[-1].strip()[:300]}" if said else "")
