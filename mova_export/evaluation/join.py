"""The answers of several shards as one file, as if one process had answered them all."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from mova_export.evaluation.errors import EvaluationError
from mova_export.evaluation.kept import Kept, split
from mova_export.evaluation.lock import open_locked
from mova_export.evaluation.questions import QuestionFile
from mova_export.evaluation.whole import write_whole


def join(parts: Sequence[Path], file: QuestionFile, target: Path, *, overwrite: bool = False) -> int:
    """Write the answers of all parts in the order of the questions.

    Args:
        parts: answers files of one run's shards.
        file: the questions, of all shards.
        target: gets the answers, whole or not at all.
        overwrite: replace what it holds.

    Returns:
        How many answers it holds.

    Raises:
        EvaluationError: a part is missing, torn, being written, or of another run; an answer stands twice, or is one to
            none of the questions; the target holds something or can't be written.
    """
    kept = Kept(file.questions)
    lines: list[bytes] = []
    for part in parts:
        found, torn = split(_read(part))
        if torn:
            raise EvaluationError(f"--join {part}: its last line is torn; let its shard go on first")
        kept.read(found, f"--join {part}")
        lines += found
    if target.exists() and any(target.samefile(part) for part in parts):
        raise EvaluationError(f"--answers {target}: is one of the parts")
    lock = open_locked(target)
    try:
        if os.fstat(lock).st_size and not overwrite:
            raise EvaluationError(f"--answers {target}: holds something already; --overwrite replaces it")
        ordered = sorted(zip(kept.indices, lines, strict=True))
        write_whole(Path(os.path.realpath(target)), (line + b"\n" for _, line in ordered))
    finally:
        os.close(lock)
    return len(lines)


def _read(part: Path) -> bytes:
    try:
        with part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return file.read()
    except BlockingIOError:
        raise EvaluationError(f"--join {part}: a process writes it; let it come to its end first") from None
    except OSError as error:
        raise EvaluationError(f"--join {part}: can't be read ({error.strerror})") from None
