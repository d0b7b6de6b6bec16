"""A contender in a process of its own, which holds what it needs and runs when it is asked."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from mova_runtime import MovaError, ParityError

_TYPES = {"mistake": MovaError, "unsound": ParityError}
PATIENCE = 30.0
"""Seconds that a process has to end after it was told to."""


class StandBy:
    """An object in another process, whose methods are called over a pipe; a context manager."""

    def __init__(self, name: str, make: Callable[..., Any], *arguments: Any) -> None:
        """Start the process; `make(*arguments)` makes the object there.

        Args:
            name: for messages.
            make: a class or function that can be imported by its name.
        """
        self._name = name
        # Not forked: nothing of this process's memory counts as the contender's.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, method: str, *arguments: Any) -> Any:
        """What the object's method returned.

        Raises:
            MovaError: what it raised, or that the process is gone; ParityError where it raised that.
            RuntimeError: it raised something else.
        """
        try:
            self._pipe.send((method, arguments))
            kind, result = self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join(PATIENCE)
            raise MovaError(
                f"{self._name} ended with status {self._process.exitcode} while it was asked to {method}; "
                "-9 is what the system does where memory runs out"
            ) from None
        if kind in _TYPES:
            raise _TYPES[kind](f"{self._name}: {result}")
        if kind == "fault":
            raise RuntimeError(f"{self._name} failed in {method}:\n{result}")
        return result

    def __enter__(self) -> StandBy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(pipe: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    made: Any = None
    while True:
        try:
            method, given = pipe.recv()
        except EOFError:
            return
        try:
            if made is None:
                made = make(*arguments)
            answer = ("done", getattr(made, method)(*given))
        except MovaError as error:
            answer = ("unsound" if isinstance(error, ParityError) else "mistake", str(error))
        except Exception:  # noqa: BLE001  # the other process raises it
            answer = ("fault", traceback.format_exc())
        pipe.send(answer)
