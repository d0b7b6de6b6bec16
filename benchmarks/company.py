"""Everybody who is compared as a language model: each in a process of its own, asked in turn, and checked first."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from speakers import Ours, Theirs
from stand_by import StandBy

from mova_export.bench.timing import Contender, Spread, ratios
from mova_runtime import ParityError
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.manifest import LANGUAGE_MODEL, Language

CACHES = {"dynamic": "torch bf16", "static": "torch bf16, static cache"}
"""Of transformers', by how they are asked for."""

CHECKS, CHECK_TOKENS, AGREEMENT = 12, 40, 0.5
"""Prompts and their tokens; the share of prompts after which two tokens, the second from the cache, must be torch's.

Rounding to bfloat16 and to int8 changes which of two nearly equal tokens wins; by chance hardly any would agree.
"""

Found = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """A contender: its process, and which of its caches."""

    process: StandBy
    cache: str = ""

    def first(self, tokens: int, seed: int = 0) -> int:
        """The token that follows a prompt."""
        self.process.ask("forget")
        token: int = self.process.ask("begin", tokens, seed, self.cache)
        return token

    def beginning(self, seed: int) -> list[int]:
        """Two tokens that follow a prompt."""
        return [self.first(CHECK_TOKENS, seed), *self.process.ask("go_on", 1)]

    def prefill(self, tokens: int) -> Contender:
        """Reading a prompt, to its first token."""
        return Contender(lambda _: self.process.ask("begin", tokens, 0, self.cache), lambda: self.process.ask("forget"))

    def decode(self, context: int, count: int) -> Contender:
        """So many tokens after a prompt and its first token."""
        return Contender(lambda _: self.process.ask("go_on", count), lambda: self.first(context))


@dataclass(frozen=True)
class Company:
    """Everybody who takes part; `loaded`: what each said when it was ready."""

    bundle: Bundle
    ways: Mapping[str, Way]
    loaded: Mapping[str, Found]

    @property
    def vocabulary(self) -> int:
        """Tokens that the model tells apart."""
        return vocabulary_of(self.bundle)

    @property
    def language(self) -> Language:
        """Sizes of the model."""
        return self.bundle.manifest.language

    @property
    def ours(self) -> list[str]:
        """Names of those that are not torch."""
        return [name for name in self.ways if name not in CACHES.values()]

    @property
    def theirs(self) -> list[str]:
        """Names of those that are."""
        return [name for name in self.ways if name in CACHES.values()]

    def against(self, times: Mapping[str, Sequence[float]]) -> Found:
        """Ratios of neighbours in time, ours/theirs: below 1 is faster than torch."""
        return {
            name: {other: asdict(Spread.of(ratios(times[name], times[other]))) for other in self.theirs}
            for name in self.ours
        }


@contextmanager
def company(given: argparse.Namespace, bundle: Bundle) -> Iterator[Company]:
    """Start everybody. Engines are checked on this machine before, so that no check is measured."""
    vocabulary = vocabulary_of(bundle)
    ways: dict[str, Way] = {}
    loaded: dict[str, Found] = {}
    with ExitStack() as stack:
        if given.torch:
            theirs = StandBy("torch", Theirs, vocabulary, given.threads, given.model, given.seed)
            stack.enter_context(theirs)
            torch = theirs.ask("load")
            for cache in given.torch:
                ways[CACHES[cache]], loaded[CACHES[cache]] = Way(theirs, cache), torch
        for precision in given.precisions:
            ours = Ours, vocabulary, given.threads, bundle.root, precision
            with StandBy(precision, *ours) as checked:
                checked.ask("load")
            process = stack.enter_context(StandBy(precision, *ours))
            ways[precision], loaded[precision] = Way(process), process.ask("load")
        yield Company(bundle, ways, loaded)


def agree(together: Company) -> dict[str, float]:
    """After how many of a few prompts each goes on as torch's first does.

    Raises:
        ParityError: after too few.
    """
    said = {name: [way.beginning(seed) for seed in range(CHECKS)] for name, way in together.ways.items()}
    found = {}
    for other in together.theirs[:1]:
        for name in [one for one in said if one != other]:
            found[name] = sum(a == b for a, b in zip(said[name], said[other], strict=True)) / CHECKS
            if found[name] < AGREEMENT:
                raise ParityError(f"{name} and {other} go on differently: {said[name]}, {said[other]}")
    return found


def vocabulary_of(bundle: Bundle) -> int:
    """Of a bundle's language model."""
    (logits,) = (one for one in bundle.component(LANGUAGE_MODEL).outputs if one.name == "logits")
    return int(logits.shape[-1])
