"""The answers file of a run: it grows by whole lines, and is found again by the next run."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from mova_export.engines.interrupts import Interrupts
from mova_export.evaluation.errors import EvaluationError
from mova_export.evaluation.kept import Kept, split
from mova_export.evaluation.lock import open_locked
from mova_export.evaluation.questions import Question
from mova_export.evaluation.record import Run
from mova_export.evaluation.whole import partial_of, sync_folder, write_whole


class AnswersFile:
    """Answers of one run to some questions, this process's alone. A context manager."""

    def __init__(self, path: Path, run: Run, questions: Sequence[Question], *, overwrite: bool = False) -> None:
        """Open or make it, and cut off what a kill left of a last line.

        Args:
            path: in a folder that is there.
            run: whose answers it holds.
            questions: that it may hold answers to.
            overwrite: begin anew, whatever it holds.

        Raises:
            EvaluationError: another process has it, it can't be read or written, or holds something else.
        """
        self._name = f"--answers {path}"
        self._path = Path(os.path.realpath(path))  # a link stays one, its target is written
        self._kept = Kept(questions, run, "; --overwrite begins anew")
        self._descriptor = open_locked(path)
        try:
            with contextlib.suppress(OSError):
                partial_of(self._path).unlink()  # of a run that was killed; nobody else is here
            self._length = 0 if overwrite else self._found()
            self._order = list(self._kept.indices)
            os.ftruncate(self._descriptor, self._length)
            sync_folder(self._path.parent)
        except OSError as error:
            os.close(self._descriptor)
            raise EvaluationError(f"{self._name}: can't be written ({error.strerror})") from None
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def answered(self) -> frozenset[int]:
        """Indices of the questions that had an answer when it was opened."""
        return frozenset(self._kept.indices)

    @property
    def count(self) -> int:
        """Answers in the file now."""
        return len(self._order)

    @property
    def routes(self) -> Counter[tuple[str, ...]]:
        """How often each set of experts had been used when it was opened."""
        return self._kept.routes.copy()

    def add(self, question: Question, line: bytes) -> None:
        """Append an answer's line: it is on the disk afterwards, or not in the file at all.

        Raises:
            EvaluationError: it can't be written; what was there stays.
        """
        with Interrupts():
            try:
                rest = memoryview(line)
                while rest:  # one write, unless the disk is full
                    rest = rest[os.write(self._descriptor, rest) :]
                os.fsync(self._descriptor)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self._length)
                raise EvaluationError(f"{self._name}: can't be written ({error.strerror}); its answers stay") from None
            self._length += len(line)
            self._order.append(question.index)

    def finish(self) -> None:
        """Put the answers into the questions' order, which they leave where an earlier run could not answer all.

        Nothing can be added afterwards. Raises like `add`.
        """
        if self._order != sorted(self._order):
            lines, _ = split(self._read())
            write_whole(self._path, (line + b"\n" for _, line in sorted(zip(self._order, lines, strict=True))))

    def close(self) -> None:
        """Let others have it."""
        os.close(self._descriptor)

    def __enter__(self) -> AnswersFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _found(self) -> int:
        """Read what is there; the length of its whole lines, in bytes."""
        lines, _ = split(self._read())
        self._kept.read(lines, self._name)
        return sum(len(line) + 1 for line in lines)

    def _read(self) -> bytes:
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            return file.read()
