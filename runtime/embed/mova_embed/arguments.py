"""What C gives besides images, as what `mova_runtime` takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mova_embed.status import RefusedError, Status

if TYPE_CHECKING:
    from mova_runtime import How

MAX_NEW_TOKENS = 128
_DEFAULT, _ON = 0, 1
_MOST_STOPS = 1024


def text(ffi: Any, pointer: Any, name: str) -> str:
    """UTF-8 up to the zero.

    Raises:
        RefusedError: it is something else.
    """
    try:
        decoded: str = ffi.string(pointer).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RefusedError(Status.INVALID_ARGUMENT, f"{name} is not UTF-8 (byte {error.start})") from None
    return decoded


def experts(ffi: Any, pointer: Any) -> tuple[str, ...] | None:
    """Names with commas between them; "none" or "" for none, None where the model is to choose. Raises like `text`."""
    if not pointer:
        return None
    given = text(ffi, pointer, "experts").strip()
    return () if given in ("", "none") else tuple(name.strip() for name in given.split(","))


def options(ffi: Any, given: Any) -> dict[str, Any]:
    """A `mova_options` as arguments of `mova_runtime.open`; what is left at its default is left out.

    Raises:
        RefusedError: a text is not UTF-8.
    """
    names = ("backend", "precision", "memory_budget", "device_memory_budget", "feature_cache")
    found: dict[str, Any] = {name: text(ffi, value, name) for name in names if (value := getattr(given, name))}
    if given.fallback:
        found["fallback"] = tuple(one.strip() for one in text(ffi, given.fallback, "fallback").split(","))
    if given.lease_timeout:
        found["lease_timeout"] = None if given.lease_timeout < 0 else given.lease_timeout
    found.update({name: value for name in ("threads", "max_context") if (value := getattr(given, name))})
    switches = ("prefetch", "speculate", "experts_at_once", "keep_compiled")
    found.update({name: value == _ON for name in switches if (value := getattr(given, name)) != _DEFAULT})
    return found


@dataclass
class Stop:
    """Whether an answer is still wanted: see `mova_runtime.How`, `cancel`."""

    flag: Any
    """An int32_t that another thread may set, or NULL."""
    closed: Callable[[], bool]
    """Another thread closed the runtime."""
    heard_enough: bool = False
    """The callback said so."""
    by_closing: bool = False
    """The answer ended for that, and not because the program cancelled it: what was seen first counts."""

    def is_set(self) -> bool:
        """Asked before each token, and not again once it was so."""
        cancelled = self.heard_enough or bool(self.flag and self.flag[0])
        self.by_closing = not cancelled and self.closed()
        return cancelled or self.by_closing


@dataclass(frozen=True)
class Wanted:
    """A `mova_request`."""

    experts: tuple[str, ...] | None
    max_new_tokens: int
    stop: Stop
    how: How


def wanted(ffi: Any, given: Any, closed: Callable[[], bool]) -> Wanted:
    """Read a `mova_request`; whether its numbers make sense is for the runtime to say.

    `closed`: asked before each token of the answer, which ends where it is true.

    Raises:
        RefusedError: a text is not UTF-8, or the texts that end the answer have no end.
    """
    stops: list[str] = []
    while given.stop and given.stop[len(stops)]:
        stops.append(text(ffi, given.stop[len(stops)], "stop"))
        if len(stops) > _MOST_STOPS:
            raise RefusedError(
                Status.INVALID_ARGUMENT, f"stop has over {_MOST_STOPS} texts; put a NULL behind the last"
            )
    stop = Stop(given.cancel, closed)
    how: How = {
        "temperature": given.temperature,
        "top_p": given.top_p or 1.0,
        "seed": given.seed if given.seeded else None,
        "stop": stops,
        "cancel": stop,
    }
    return Wanted(experts(ffi, given.experts), given.max_new_tokens or MAX_NEW_TOKENS, stop, how)
