"""The calls of the library, each a method that returns or raises: what C asks, said to `mova_runtime`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mova_runtime
from mova_embed import arguments
from mova_embed.handles import Handles, Kind
from mova_embed.pixels import frame
from mova_embed.results import Result
from mova_embed.status import RefusedError, Status
from mova_runtime import Answer, Routing, Runtime

if TYPE_CHECKING:
    from mova_runtime.engines.protocol import Array


_CLOSED = "the runtime is closed"


@dataclass
class _Opened:
    """A runtime that C has, or just closed."""

    runtime: Runtime
    closed: bool = False


class Library:
    """What is open in this process. `ffi` is cffi's, of the library that was compiled.

    Any thread may call anything. What is no handle raises `RefusedError`, what the runtime finds wrong a `MovaError`.
    """

    def __init__(self, ffi: Any) -> None:
        self._ffi = ffi
        self._runtimes = Handles[_Opened](Kind.RUNTIME)
        self._results = Handles[Result](Kind.RESULT)

    def open(self, path: Any, options: Any) -> int:
        """A runtime's handle."""
        folder = os.fsdecode(self._ffi.string(path))
        given = arguments.options(self._ffi, options)
        # C can't ask for a trace, which would grow for thousands of calls.
        return self._runtimes.add(_Opened(mova_runtime.open(folder, trace_events=0, **given)))

    def close(self, handle: int) -> None:
        """Close a runtime; calls at work in it are told."""
        opened = self._runtimes.take(handle)
        opened.closed = True
        opened.runtime.close()

    def route(self, handle: int, image: Any, question: Any) -> int:
        """A result's handle, as all that follow."""
        with self._using(handle) as opened:
            routing = opened.runtime.route(frame(self._ffi, image), self._question(question))
        return self._results.add(Result({"text": routing.text, "experts": _names(routing)}, routing.tokens))

    def encode(self, handle: int, image: Any, question: Any, experts: Any) -> int:
        """Tensors "tokens" and "gates"."""
        chosen = arguments.experts(self._ffi, experts)
        with self._using(handle) as opened:
            visual = opened.runtime.encode(frame(self._ffi, image), self._question(question), chosen)
        return self._results.add(Result({}, tensors={"tokens": _own(visual.tokens), "gates": _own(visual.gates)}))

    def features(self, handle: int, image: Any, name: Any) -> int:
        """The tensor "features"."""
        with self._using(handle) as opened:
            found = opened.runtime.features_in_place(frame(self._ffi, image), arguments.text(self._ffi, name, "name"))
        return self._results.add(Result({}, tensors={"features": _own(found)}))

    def answer(
        self, handle: int, image: Any, question: Any, request: Any, piece: Any, context: Any, kept: bool
    ) -> tuple[int, bool]:
        """An answer's handle, 0 unless it is to be `kept`, and whether it was cancelled; its pieces to `piece`, if any.

        The callback runs without Python's lock, in this thread.
        """
        with self._using(handle) as opened:
            runtime = opened.runtime
            wanted = arguments.wanted(self._ffi, request, lambda: opened.closed)
            asked, chosen = runtime.request(
                frame(self._ffi, image),
                self._question(question),
                wanted.experts,
                wanted.max_new_tokens,
                wanted.how,
            )
            for said in asked.speak(chosen):
                if piece and not wanted.stop.heard_enough and not opened.closed:
                    encoded = said.encode("utf-8", "replace")
                    wanted.stop.heard_enough = bool(piece(encoded, len(encoded), context))
            answer = runtime.answer_of(asked)
        cancelled = wanted.stop.heard_enough or answer.stats.finish == "cancelled"
        if wanted.stop.by_closing:
            raise RefusedError(Status.CLOSED, _CLOSED)
        return self._results.add(_answered(answer)) if kept else 0, cancelled

    def stats(self, handle: int) -> int:
        """Totals as JSON."""
        with self._using(handle) as opened:
            return self._results.add(Result({"text": json.dumps(opened.runtime.stats().to_dict(), ensure_ascii=False)}))

    def result(self, handle: int) -> Result:
        """What a handle of a result stands for."""
        return self._results.get(handle)

    def release(self, handle: int) -> None:
        """Give a result's memory back."""
        self._results.take(handle)

    @contextmanager
    def _using(self, handle: int) -> Iterator[_Opened]:
        opened = self._runtimes.get(handle)
        try:
            yield opened
        except Exception as error:
            if opened.closed:  # whatever a call then runs into
                raise RefusedError(Status.CLOSED, _CLOSED) from error
            raise

    def _question(self, pointer: Any) -> str:
        return arguments.text(self._ffi, pointer, "question")


def _names(routing: Routing) -> str:
    return ",".join(routing.experts)


def _answered(answer: Answer) -> Result:
    whole = json.dumps(answer.to_dict(), ensure_ascii=False)
    return Result({"text": answer.text, "json": whole, "experts": _names(answer.routing)}, answer.tokens)


def _own(array: Array) -> Array:
    """A host's array in memory of the result's own, since C might write to it; a device's as it is."""
    import numpy as np  # noqa: PLC0415  # slow to import

    return np.array(array, order="C") if isinstance(array, np.ndarray) else array
