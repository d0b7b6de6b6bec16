"""`python -m mova_export.bench.worker`: a process that measures, one line of JSON in, one line out.

A line asks for a step by its name, `do`, with what the step takes; the answer is what it found, or `error`, one line.
The process ends when its input does.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from mova_export.bench.held import Held

Answer = dict[str, Any]


class Steps:
    """What can be asked for, and the contender that steps are about."""

    def __init__(self) -> None:
        self._held: Held | None = None

    def answer(self, do: str, **asked: Any) -> Answer:
        """Take a step.

        Raises:
            Exception: whatever went wrong.
        """
        if do == "open":
            self._held = Held(**asked)
            return self._held.start()
        if do in _WHOLE:
            return _WHOLE[do](**asked)
        found: Answer = getattr(self._held, do)(**asked)
        return found


def _rates(backends: list[tuple[str, Any]], threads: int) -> Answer:
    from mova_export.bench.rate import matrix_rates  # noqa: PLC0415  # starts every backend

    return {"rates": matrix_rates([(backend, precision) for backend, precision in backends], threads)}


def _know(**asked: Any) -> Answer:
    from mova_export.bench.requests import know  # noqa: PLC0415  # imports the runtime

    return know(**asked)


def _route(**asked: Any) -> Answer:
    from mova_export.bench.requests import route  # noqa: PLC0415

    return route(**asked)


def _everything(**asked: Any) -> Answer:
    from mova_export.bench.requests import everything  # noqa: PLC0415

    return everything(**asked)


_WHOLE: dict[str, Callable[..., Answer]] = {
    "rates": _rates,
    "know": _know,
    "route": _route,
    "everything": _everything,
}
"""Steps that are about no contender: each has a process to itself."""


def serve(lines: Iterable[str], answers: IO[str], steps: Any) -> None:
    """Answer until the lines end."""
    for line in lines:
        try:
            answer = steps.answer(**json.loads(line))
        except Exception as error:  # noqa: BLE001  # a library's, of any kind: it costs this contender, not the rest
            answer = {"error": told(error)}
        print(json.dumps(answer), file=answers, flush=True)


def told(error: BaseException) -> str:
    """An error in one line."""
    said = " ".join(str(error).split())[:400]
    return f"{type(error).__name__}: {said}" if said and type(error).__module__ == "builtins" else said or repr(error)


def main() -> None:
    """Serve standard input. What libraries print goes where errors go."""
    with contextlib.suppress(OSError):  # where memory runs out, the measured process is the one to end
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, answers, Steps())


if __name__ == "__main__":
    main()
