"""An answer's pieces, as a caller gets them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator
from types import TracebackType


class Pieces(Iterator[str]):
    """Text as it comes. Until it ends or is closed, it holds the language model. A context manager, which closes it."""

    def __init__(self, pieces: Generator[str, None, None]) -> None:
        self._pieces = pieces
        self._begun = False

    def __next__(self) -> str:
        self._begun = True
        try:
            return next(self._pieces)
        except BaseException:
            self._begun = False  # it has ended
            raise

    def close(self) -> None:
        """Give up what is still to come."""
        self._pieces.close()
        self._begun = False

    def __enter__(self) -> Pieces:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Wherever Python happens to collect it, also amid the pool's own work: ending a lease there would change what
        # that work is about, so another thread does it.
        if self._begun:
            with contextlib.suppress(RuntimeError):  # Python is shutting down
                threading.Thread(target=self._pieces.close, name="mova-abandoned").start()
