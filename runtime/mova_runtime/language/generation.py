"""How a caller wants an answer: its length, how tokens are chosen, and what ends it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

from mova_runtime.errors import QuestionError
from mova_runtime.given import Cancel
from mova_runtime.language.ending import checked
from mova_runtime.language.sampling import Sampling


@dataclass(frozen=True)
class Generation:
    """Options of one answer.

    max_new_tokens: its length at most; sampling: how tokens are chosen; stop: texts that end it, and are not part of
    it; cancel: asked before each run of the language model.
    """

    max_new_tokens: int = 128
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    cancel: Cancel | None = None

    @property
    def cancelled(self) -> bool:
        """Whether the answer is not wanted any more."""
        return self.cancel is not None and self.cancel.is_set()


class _Once:
    """A cancel that stays set once it was seen so: whoever asks later is told the same."""

    def __init__(self, cancel: Cancel) -> None:
        self._cancel = cancel
        self._seen = False

    def is_set(self) -> bool:
        self._seen = self._seen or bool(self._cancel.is_set())
        return self._seen


def generation(
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    stop: str | Sequence[str] = (),
    cancel: Cancel | None = None,
) -> Generation:
    """What a caller asks for, checked.

    Raises:
        QuestionError: something of it makes no sense.
    """
    try:
        limit = 0 if isinstance(max_new_tokens, bool) else operator.index(max_new_tokens)
    except TypeError:
        limit = 0
    if limit < 1:
        raise QuestionError(f"max_new_tokens must be a positive whole number, not {max_new_tokens!r}")
    stops = checked((stop,) if isinstance(stop, str) else stop)
    if cancel is not None and not callable(getattr(cancel, "is_set", None)):
        raise QuestionError(f"cancel is something with is_set(), such as a threading.Event, not {cancel!r}")
    return Generation(limit, Sampling(temperature, top_p, seed), stops, None if cancel is None else _Once(cancel))
