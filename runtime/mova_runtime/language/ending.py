"""Stop sequences: text that ends an answer, in whatever pieces it comes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mova_runtime.errors import QuestionError


class Ending:
    """Passes pieces of text on, up to the first stop sequence.

    The first is the one that is complete first, and of those that end with the same character the longest, so that
    nobody waits for a longer one that may never come: ("b", "abc") ends "abc" before its "b". It is found in the text,
    not in its pieces, and characters are compared as they are: neither case nor Unicode's normal forms are folded.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        """`stops`: any of them ends the text; () never does.

        Raises:
            QuestionError: they are not a sequence of texts, one is empty, or not valid Unicode.
        """
        self._matches = [_Match(stop) for stop in dict.fromkeys(checked(stops))]
        self._held = ""
        self.done = False
        """A stop has been met; what follows it is dropped."""

    def add(self, piece: str) -> str:
        """The text that is certainly before any stop; what may be the beginning of one is held back."""
        if self.done:
            return ""
        text = self._held + piece
        for end, character in enumerate(piece, len(self._held) + 1):
            if met := [len(match.stop) for match in self._matches if match.read(character)]:
                self.done, self._held = True, ""
                return text[: end - max(met)]
        certain = len(text) - max((match.length for match in self._matches), default=0)
        self._held = text[certain:]
        return text[:certain]

    def end(self) -> str:
        """No more text comes: what was held back."""
        held, self._held = self._held, ""
        for match in self._matches:
            match.length = 0
        return held


class _Match:
    """How much of a stop the text ends with, told character by character (Knuth, Morris and Pratt 1977).

    Each character costs the same on average, however long the stop is and however much it repeats itself.
    """

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.length = 0
        """Characters at the text's end that are the stop's beginning, as many as possible."""
        self._shorter = [0] * (len(stop) + 1)
        """By a length that matches: the next shorter one that then matches, too."""
        for index in range(1, len(stop)):
            self._shorter[index + 1] = self._longer(self._shorter[index], stop[index])

    def read(self, character: str) -> bool:
        """Whether the stop is complete with this character."""
        self.length = self._longer(self.length, character)
        return self.length == len(self.stop)

    def _longer(self, length: int, character: str) -> int:
        """What matches when `length` characters did and another one comes."""
        while length and self.stop[length] != character:
            length = self._shorter[length]
        return length + 1 if self.stop[length] == character else 0


def checked(stops: Sequence[str]) -> tuple[str, ...]:
    """Stop sequences that can be met.

    Raises:
        QuestionError: they are not a sequence of texts, one is empty, or not valid Unicode.
    """
    if isinstance(stops, str) or not isinstance(stops, Iterable):
        raise QuestionError(f"stop sequences are a sequence of texts such as ('\\n\\n', 'User:'), not {stops!r}")
    stops = tuple(stops)
    for stop in stops:
        if not isinstance(stop, str):
            raise QuestionError(f"a stop sequence is text, not {type(stop).__name__}")
        if not stop:
            raise QuestionError("a stop sequence is empty: it would end every answer before it begins")
        try:
            stop.encode("utf-8")
        except UnicodeEncodeError:
            raise QuestionError("a stop sequence is not valid Unicode (it holds half of a surrogate pair)") from None
    return stops
