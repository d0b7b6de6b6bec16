"""How a bundle is opened."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from sys import maxsize
from threading import TIMEOUT_MAX

from mova_runtime.errors import MovaError
from mova_runtime.given import LanguageModel, Router
from mova_runtime.trace import KEPT_EVENTS

PINNED = ("base", "text", "adapter")
FEATURE_CACHE = "256MiB"
LEASE_SECONDS = 120.0


@dataclass(frozen=True)
class Options:
    """What `mova_runtime.open` takes besides the path, which says what each means."""

    backend: str = "auto"
    precision: str | None = None
    fallback: Sequence[str] | None = ()
    threads: int | None = None
    memory_budget: str | int | None = None
    device_memory_budget: str | int | None = None
    feature_cache: str | int = FEATURE_CACHE
    pinned: Collection[str] = PINNED
    lease_timeout: float | None = LEASE_SECONDS
    prefetch: bool = True
    speculate: bool = False
    experts_at_once: bool = False
    keep_compiled: bool = False
    max_context: int | None = None
    trace_events: int = KEPT_EVENTS
    language_model: LanguageModel | None = None
    router: Router | Sequence[str] | None = None


def check(options: Options, components: Collection[str]) -> None:
    """See that what nobody else checks makes sense for a bundle of these components.

    Raises:
        MovaError: it does not.
    """
    seconds = options.lease_timeout
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is not None and not (is_number and 0 <= seconds <= TIMEOUT_MAX):
        raise MovaError(f"lease_timeout is seconds from 0 to {TIMEOUT_MAX:.0f}, or None, not {seconds!r}")
    if isinstance(options.pinned, str) or not isinstance(options.pinned, Collection):
        raise MovaError(f"pinned is a sequence of components such as ('base', 'sam'), not {options.pinned!r}")
    if unknown := [name for name in options.pinned if name not in (*components, *PINNED)]:
        raise MovaError(f"pinned: no component {unknown[0]!r} in the bundle; it has {', '.join(components)}")
    events = options.trace_events
    if isinstance(events, bool) or not isinstance(events, int) or not 0 <= events <= maxsize:
        raise MovaError(f"trace_events is how many events to keep, from 0 up, not {events!r}")
    if options.language_model is not None and not callable(getattr(options.language_model, "generate", None)):
        raise MovaError(
            f"language_model has to have generate(): see mova_runtime.LanguageModel, not {options.language_model!r}"
        )
