"""What the runtime returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import numpy as np

    from mova_runtime.engines.pool import PoolTotals
    from mova_runtime.given import Cancel


@dataclass(frozen=True)
class Routing:
    """Which experts suit an image and a question.

    experts: their names, in the experts' order; text and tokens: what the language model said, empty where the
    caller chose the experts.
    """

    experts: tuple[str, ...]
    text: str
    tokens: tuple[int, ...]


class How(TypedDict, total=False):
    """How an answer is to be, beside its length; everything may be left out.

    temperature: 0, the default, takes the most likely token, always; else tokens are drawn by their probability, the
    likely ones more often the lower it is.
    top_p: tokens are drawn from the likeliest that together have this probability, 1 by default: from all.
    seed: the same one draws the same tokens; None, the default, draws anew.
    stop: a text, or several, that end the answer, and are not part of it.
    cancel: a `threading.Event` or the like; when it is set, the answer ends where it is.
    """

    temperature: float
    top_p: float
    seed: int | None
    stop: str | Sequence[str]
    cancel: Cancel | None


@dataclass(frozen=True)
class Visual:
    """A fused image.

    tokens: [T, H] float32, for the language model; gates: [blocks, 7] float32, each adapter block's weight of each
    expert, zero for those that were not selected.
    """

    tokens: np.ndarray
    gates: np.ndarray


@dataclass(frozen=True)
class Served:
    """By what a component is served: "backend:precision"; and why not by those listed before it, one line each."""

    by: str
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stats:
    """What a request did.

    backend, precision: what was chosen to run, and `why`; served: by component, what did run it, such as "ort:fp32",
    and why those listed before it did not; stages: one entry a stage, with `name`, `ms`, `start_ms` from the request's
    start, and `thread`; engines_loaded: names of the engines in memory afterwards; cache: features this request
    computed (`misses`) and found in the cache (`hits`); loading: milliseconds that loading engines took (`ms`), those
    that the request waited for it (`exposed_ms`) and those it did not (`hidden_ms`); prompt_tokens: of the answer's
    prompt, and of these reused_tokens, which an earlier prompt had in common with it and were not read again; finish:
    "stop" (the model ended, or a stop sequence came), "length" (max_new_tokens), "context" (no room left), "cancelled".
    """

    backend: str
    precision: str
    why: str
    served: dict[str, Served]
    stages: tuple[dict[str, Any], ...]
    engines_loaded: tuple[str, ...]
    cache: dict[str, int]
    loading: dict[str, float]
    prompt_tokens: int
    reused_tokens: int
    finish: str


@dataclass(frozen=True)
class Answer:
    """An answer: its text without special tokens, its tokens with the stop token if the model ended by itself."""

    text: str
    tokens: tuple[int, ...]
    routing: Routing
    stats: Stats

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as `mova run --json` prints it."""
        return {
            "answer": self.text,
            "tokens": list(self.tokens),
            "routing": {
                "text": self.routing.text,
                "tokens": list(self.routing.tokens),
                "experts": list(self.routing.experts),
            },
            "stats": {
                "backend": self.stats.backend,
                "precision": self.stats.precision,
                "why": self.stats.why,
                "served": {
                    name: {"by": served.by, "refused": list(served.refused)}
                    for name, served in self.stats.served.items()
                },
                "stages": list(self.stats.stages),
                "engines_loaded": list(self.stats.engines_loaded),
                "cache": self.stats.cache,
                "loading": self.stats.loading,
                "prompt_tokens": self.stats.prompt_tokens,
                "reused_tokens": self.stats.reused_tokens,
                "finish": self.stats.finish,
            },
        }


@dataclass(frozen=True)
class Totals:
    """What a runtime has done since it was opened.

    pool: loads, evictions, waits, and what is in memory now; cache: features found (`hits`) and computed (`misses`) by
    all requests, and the `bytes` kept; served: by component, what it was loaded with.
    """

    pool: PoolTotals
    cache: dict[str, int]
    served: dict[str, Served]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)
