"""Where C's calls enter Python, and where every exception ends: as a status, and a line for `mova_last_error`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mova_embed import arguments
from mova_embed.lending import lend
from mova_embed.library import Library
from mova_embed.results import TEXTS
from mova_embed.status import Status, status_of, text_of

Entry = Callable[..., Status | None]
"""A function that C calls; None is `Status.OK`."""


def connect(ffi: Any, lib: Any) -> None:
    """Give the compiled library its Python side. `ffi` and `lib` are cffi's."""
    library = Library(ffi)

    def entry(function: Entry) -> None:
        """Let C call it as mova_inner_NAME."""

        def call(*given: Any) -> int:
            try:
                return (function(*given) or Status.OK) + 1
            except BaseException as error:  # noqa: BLE001  # SystemExit and KeyboardInterrupt must not cross either
                lib.mova_inner_say(text_of(error).encode("utf-8", "replace"))
                return status_of(error) + 1

        ffi.def_extern(name=f"mova_inner_{function.__name__}")(call)

    def ready() -> None:
        pass

    def open(path: Any, options: Any, runtime: Any) -> None:
        runtime[0] = library.open(path, options)

    def close(runtime: int) -> None:
        library.close(runtime)

    def route(runtime: int, image: Any, question: Any, result: Any) -> None:
        result[0] = library.route(runtime, image, question)

    def encode(runtime: int, image: Any, question: Any, experts: Any, result: Any) -> None:
        result[0] = library.encode(runtime, image, question, experts)

    def features(runtime: int, image: Any, name: Any, result: Any) -> None:
        result[0] = library.features(runtime, image, name)

    def answer(
        runtime: int, image: Any, question: Any, request: Any, piece: Any, context: Any, result: Any
    ) -> Status | None:
        found, cancelled = library.answer(runtime, image, question, request, piece, context, bool(result))
        if result:
            result[0] = found
        if cancelled:
            lib.mova_inner_say(b"the answer was cancelled")
        return Status.CANCELLED if cancelled else None

    def stats(runtime: int, result: Any) -> None:
        result[0] = library.stats(runtime)

    def text(result: int, kind: int, pointer: Any, length: Any) -> None:
        pointer[0], length[0] = library.result(result).text(ffi, TEXTS[kind])

    def tokens(result: int, pointer: Any, count: Any) -> None:
        pointer[0], count[0] = library.result(result).tokens(ffi)

    def tensor(result: int, name: Any, description: Any) -> None:
        library.result(result).fill(ffi, arguments.text(ffi, name, "name"), description)

    def dlpack(result: int, name: Any, pointer: Any) -> None:
        pointer[0] = ffi.cast("void *", lend(library.result(result).tensor(arguments.text(ffi, name, "name"))))

    def release(result: int) -> None:
        library.release(result)

    entries: list[Entry] = [ready, open, close, route, encode, features, answer, stats]
    entries += [text, tokens, tensor, dlpack, release]
    for function in entries:
        entry(function)
