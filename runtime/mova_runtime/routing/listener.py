"""Listening to the router while it speaks: what it has named, and whether more can change it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mova_runtime.bundle.manifest import Expert
from mova_runtime.language.tokenizer import Tokenizer
from mova_runtime.routing.parse import is_settled, parse


class Listener:
    """Is told every token."""

    def __init__(self, tokenizer: Tokenizer, experts: Sequence[Expert], named: Callable[[str], None]) -> None:
        """`named` is called once with each expert that the router names: no later token takes it back."""
        self._tokenizer = tokenizer
        self._experts = experts
        self._named = named
        self._heard: set[str] = set()

    def __call__(self, tokens: Sequence[int]) -> bool:
        """Whether the outcome is settled, with all tokens so far."""
        if self._tokenizer.is_byte(tokens[-1]):  # what a run of bytes spells is not sure before its end
            return False
        text = self._tokenizer.decode(tokens)
        for name in parse(text, self._experts):
            if name not in self._heard:
                self._heard.add(name)
                self._named(name)
        return is_settled(text, self._experts)
