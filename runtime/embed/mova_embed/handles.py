"""Handles: numbers that C has, and what they stand for here. A number is given out once, ever."""

from __future__ import annotations

import threading
from enum import IntEnum
from typing import Generic, TypeVar

from mova_embed.status import RefusedError, Status

Thing = TypeVar("Thing")

_STEP = 8
"""A handle is a count times this, and its kind: odd, so that no address of an object is taken for one."""


class Kind(IntEnum):
    """Of what stands behind a handle."""

    RUNTIME = 1
    RESULT = 3


class Handles(Generic[Thing]):
    """What is open, of one kind. Each method is safe in any thread."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._open: dict[int, Thing] = {}
        self._last = 0
        self._lock = threading.Lock()

    def add(self, thing: Thing) -> int:
        """A handle for it."""
        with self._lock:
            self._last += 1
            handle = self._last * _STEP + self._kind
            self._open[handle] = thing
        return handle

    def get(self, handle: int) -> Thing:
        """What a handle stands for.

        Raises:
            RefusedError: it was closed, is of another kind, or none.
        """
        thing = self._open.get(handle)
        if thing is None:
            raise self._refused(handle)
        return thing

    def take(self, handle: int) -> Thing:
        """The same, and close it: of several threads one has it. Raises like `get`."""
        thing = self._open.pop(handle, None)
        if thing is None:
            raise self._refused(handle)
        return thing

    def _refused(self, handle: int) -> RefusedError:
        name = self._kind.name.lower()
        count, kind = divmod(handle, _STEP)
        if kind == self._kind and 0 < count <= self._last:
            return RefusedError(Status.CLOSED, f"the {name} is closed")
        others = {other.value: other.name.lower() for other in Kind if other is not self._kind}
        if kind in others and count > 0:
            return RefusedError(Status.INVALID_ARGUMENT, f"no {name}'s handle, perhaps a {others[kind]}'s")
        return RefusedError(Status.INVALID_ARGUMENT, f"no {name}'s handle")
