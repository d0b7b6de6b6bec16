"""How fast a language model speaks: when its tokens came."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from time import perf_counter


class Pace:
    """Times of one answer's tokens, from when they are first asked for.

    Between two tokens is the reader's time, too: who reads a stream slowly hears slowly.
    """

    def __init__(self) -> None:
        self._start = perf_counter()
        self._first = self._last = self._start
        self._count = 0

    def heard(self, tokens: Generator[int, None, None]) -> Generator[int, None, None]:
        """The same tokens; closing this closes them."""
        with closing(tokens):
            for token in tokens:
                self._last = perf_counter()
                self._first = self._first if self._count else self._last
                self._count += 1
                yield token

    def facts(self) -> dict[str, float]:
        """`tokens` that came; milliseconds until the first, `first_token_ms`, and from it to the last, `rest_ms`."""
        return {
            "tokens": self._count,
            "first_token_ms": round((self._first - self._start) * 1e3, 3),
            "rest_ms": round((self._last - self._first) * 1e3, 3),
        }
