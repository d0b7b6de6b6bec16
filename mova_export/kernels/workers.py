"""Processes that compile kernels at the same time, each in an environment that changes nothing in the code."""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

import triton

from mova_export.engines.interrupts import Interrupts
from mova_export.errors import ExportError
from mova_kernels.aot import Compiled, environment
from mova_kernels.errors import KernelError
from mova_kernels.targets import Target
from mova_kernels.variants import Variant

Task = tuple[Target, Variant]

# isolated from the environment, and finding modules where this process does
_START = "import sys; sys.path[:] = sys.argv[1:]; from mova_export.kernels.worker import main; main()"


class Workers:
    """As many processes as there are cores, or fewer where there is less to do; on leaving they are gone.

    They are of a session of their own: an interrupt from the terminal reaches whoever waits for them, not them.
    """

    def __init__(self, folder: Path, tasks: Iterable[Task]) -> None:
        """`folder` is where temporary files go; it is there and stays until after leaving."""
        self._folder = folder
        self._tasks = deque(tasks)
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Workers:
        command = [sys.executable, "-I", "-c", _START, *(str(Path(entry).absolute()) for entry in sys.path)]
        variables = environment() | {"TMPDIR": str(self._folder)}
        try:
            with Interrupts():  # none may be started and not be known
                for number in range(min(_cores(), len(self._tasks))):
                    with self._errors(number).open("wb") as errors:
                        process = subprocess.Popen(
                            command,
                            stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE,
                            stderr=errors,
                            env=variables,
                            start_new_session=True,
                        )
                    self._processes.append(process)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the assembler that it may have started
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    _pipe(pipe).close()

    def compiled(self) -> Iterator[tuple[Target, Compiled]]:
        """What the tasks became, each as soon as it is done.

        Raises:
            ExportError: a kernel can't be compiled, or a process ended while it tried.
        """
        busy: dict[int, Task] = {}
        with selectors.DefaultSelector() as selector:
            for number, process in enumerate(self._processes):
                selector.register(_pipe(process.stdout), selectors.EVENT_READ, number)
                self._next(number, busy)
            while busy:
                for key, _ in selector.select():
                    number = key.data
                    answer = self._answer(number, busy[number])
                    target, _ = busy.pop(number)
                    self._next(number, busy)
                    if number not in busy:
                        selector.unregister(key.fileobj)
                    yield target, answer

    def _next(self, number: int, busy: dict[int, Task]) -> None:
        if self._tasks:
            busy[number] = self._tasks.popleft()
            target, variant = busy[number]
            with contextlib.suppress(BrokenPipeError):  # it ended: its answer tells
                stdin = _pipe(self._processes[number].stdin)
                pickle.dump((variant, target), stdin)
                stdin.flush()

    def _answer(self, number: int, task: Task) -> Compiled:
        target, variant = task
        process, what = (
            self._processes[number],
            f"{variant.name}: Triton {triton.__version__} can't compile it for {target}",
        )
        try:
            answer = pickle.load(_pipe(process.stdout))
        except (EOFError, pickle.UnpicklingError):
            raise ExportError(f"{what} (its process ended with {self._end(number)})") from None
        if isinstance(answer, KernelError):
            raise ExportError(str(answer))
        if isinstance(answer, OSError):
            reason = answer.strerror.lower() if answer.strerror else str(answer)
            raise ExportError(f"{what} in {self._folder} ({reason})")
        assert isinstance(answer, Compiled)
        return answer

    def _end(self, number: int) -> str:
        status = self._processes[number].wait()
        said = self._errors(number).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        return f"{how}: {said[-1].strip()}" if said else how

    def _errors(self, number: int) -> Path:
        return self._folder / f"worker-{number}.log"


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
