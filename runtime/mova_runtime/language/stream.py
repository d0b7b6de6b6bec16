"""Tokens to text as they come, in pieces that are final when they leave."""

from __future__ import annotations

from mova_runtime.language.tokenizer import Tokenizer

_REPLACEMENT = "\ufffd"
_LONGEST_REWRITE = 8
"""A space and what may follow it until no clean-up of spaces can still reach it; the longest pattern has 4 characters,
and one clean-up can bring forth another."""


class TextStream:
    """Collects tokens; gives back text that later tokens can't change.

    Held back: a character whose bytes are not complete, a run of byte tokens until it ends (they are decoded together:
    one wrong byte makes all of them U+FFFD), spaces that may turn out to be the end (an answer is
    stripped), and a space so near the end that what follows may still join it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._sent = 0

    def add(self, token: int) -> str:
        """The text that became certain with this token; often empty."""
        self._tokens.append(token)
        if self._tokenizer.is_byte(token):
            return ""
        text = self._tokenizer.decode(self._tokens, complete=False).lstrip().rstrip(_REPLACEMENT)
        near_end = text.find(" ", max(self._sent, len(text) - _LONGEST_REWRITE))
        return self._send(text if near_end < 0 else text[:near_end])

    def end(self) -> str:
        """The rest."""
        return self._send(self.text)

    @property
    def text(self) -> str:
        """All of it, stripped; what `add` and `end` returned, joined."""
        return self._tokenizer.decode(self._tokens).strip()

    def _send(self, text: str) -> str:
        piece = text.rstrip()[self._sent :] if len(text.rstrip()) > self._sent else ""
        self._sent += len(piece)
        return piece
