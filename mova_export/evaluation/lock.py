"""An answers file opened by one process at a time."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from mova_export.evaluation.errors import EvaluationError


def open_locked(path: Path) -> int:
    """A descriptor to read the file and to append to it, made if it is not there; its lock goes with the process.

    Raises:
        EvaluationError: another process has it, it is no file, or can't be written.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise EvaluationError(f"--answers {path}: can't be written ({error.strerror})") from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise EvaluationError(f"--answers {path}: not a file")
            _lock(descriptor, path)
            if _is_still(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was put in order, and so replaced, between opening and locking


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise EvaluationError(f"--answers {path}: another process writes it") from None
    except OSError as error:
        raise EvaluationError(f"--answers {path}: can't be locked ({error.strerror})") from None


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
