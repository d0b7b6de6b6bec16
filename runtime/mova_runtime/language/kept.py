"""Beginnings of prompts that were read before, so that they are not read again.

The text before the image is the same every time; a second question about an image asks the router with the same
beginning; a conversation's next prompt begins with all that was said. Whatever a new prompt has in common with one
that is kept, token by token, is taken from there.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from mova_runtime.engines.memory import Memory
from mova_runtime.engines.pool import FeatureCache
from mova_runtime.language.cache import Past
from mova_runtime.language.passage import in_common

MOST = 64
"""Beginnings that are looked through for every prompt."""


@dataclass(frozen=True)
class Slot:
    """Where a prompt's beginning is kept: what was in the slot goes.

    tokens: how many of its first, None for all, with the answer.
    """

    name: Hashable
    tokens: int | None


@dataclass(frozen=True)
class Beginning:
    """A part of a prompt that was read: tokens by their marks (see `Passage`), and what the model keeps of them."""

    marks: tuple[Hashable, ...]
    past: Past


class KeptPrompts:
    """Any number of threads may use it. What is kept lies in the feature cache, and is dropped by its rule."""

    def __init__(self, features: FeatureCache) -> None:
        self._features = features
        self._lock = threading.Lock()
        self._marks: dict[Hashable, tuple[Hashable, ...]] = {}

    def longest(self, by: str, marks: Sequence[Hashable]) -> Past:
        """What is kept of a prompt's beginning, but for its last token: that one has to be read for the next.

        Args:
            by: what serves the language model, as "ort:int4": another one's keys and values are others.
            marks: of the prompt's tokens.

        Returns:
            Keys and values of the first tokens; empty where nothing is kept of them.
        """
        with self._lock:
            known = [(in_common(found, marks), key) for key, found in self._marks.items() if _by(key) == by]
        for count, key in sorted(known, key=lambda one: one[0], reverse=True):
            if not (count := min(count, len(marks) - 1)):
                break
            kept: Beginning | None = self._features.get(key) if self._features.has(key) else None
            if kept is None or in_common(kept.marks, marks) < count:  # it has gone, or another took its place
                self._forget(key)
                continue
            return [array[:, :count] for array in kept.past]
        return ()

    def has(self, by: str, slot: Hashable, marks: Sequence[Hashable]) -> bool:
        """Whether what a slot keeps begins with these tokens."""
        key = _key(by, slot)
        with self._lock:
            found = self._marks.get(key, ())
        return in_common(found, marks) == len(marks) and self._features.has(key)

    def keep(self, by: str, slot: Hashable, marks: Sequence[Hashable], past: list[np.ndarray], seconds: float) -> None:
        """Keep what was read of some tokens, as long as there is room for it.

        Args:
            by: as in `longest`.
            slot: what was under it goes.
            marks: of the tokens.
            past: of the tokens; nobody writes to it any more.
            seconds: it took to read them.
        """
        key, size = _key(by, slot), Memory(host=sum(array.nbytes for array in past))
        self._features.put(key, Beginning(tuple(marks), past), size, seconds, name="prompt")
        with self._lock:
            self._marks.pop(key, None)
            self._marks[key] = tuple(marks)
            for oldest in list(self._marks)[:-MOST]:
                del self._marks[oldest]

    def _forget(self, key: Hashable) -> None:
        with self._lock:
            self._marks.pop(key, None)


@dataclass(frozen=True)
class Memo:
    """Where an answer looks for what was read before, and leaves what it has read.

    by: what serves the language model, as "ort:int4": another one's keys and values are others.
    """

    kept: KeptPrompts
    by: str
    slot: Slot

    def past(self, marks: Sequence[Hashable]) -> Past:
        """See `KeptPrompts.longest`."""
        return self.kept.longest(self.by, marks)

    def wanted(self, marks: Sequence[Hashable]) -> int:
        """How many of the first tokens to keep: 0 if they are there."""
        first = marks if self.slot.tokens is None else marks[: self.slot.tokens]
        return 0 if self.kept.has(self.by, self.slot.name, first) else len(first)

    def keep(self, marks: Sequence[Hashable], past: list[np.ndarray], seconds: float) -> None:
        """See `KeptPrompts.keep`."""
        self.kept.keep(self.by, self.slot.name, marks, past, seconds)


def _key(by: str, slot: Hashable) -> tuple[str, str, Hashable]:
    return "prompt", by, slot


def _by(key: Hashable) -> str:
    assert isinstance(key, tuple)
    by: str = key[1]
    return by
