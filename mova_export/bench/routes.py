"""Which requests are measured, and with what each component is served in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mova_export.bench.candidates import Candidate
from mova_export.bench.process import Worker
from mova_export.errors import BenchError, WorkerError
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.manifest import LANGUAGE_MODEL

NONE, OFF = "none", "off"
NEEDED = ("base", "adapter", "text")
"""What a request takes besides its experts, and the language model where there is one."""

_PAIRS = (("dinov2", "deplot"), ("codetr", "sam"))
_TRIPLE = ("dinov2", "codetr", "sam")
_KINDS = (NONE, "single", "pair", "triple")


@dataclass(frozen=True)
class Route:
    """The experts of a request, in the order they run in."""

    experts: tuple[str, ...]

    @property
    def kind(self) -> str:
        """How many they are, in a word."""
        count = len(self.experts)
        return _KINDS[count] if count < len(_KINDS) else f"{count} experts"

    def __str__(self) -> str:
        return "+".join(self.experts) or NONE


@dataclass(frozen=True)
class Served:
    """What serves components: one for most, and others for some."""

    most: Candidate
    others: Mapping[str, Candidate]

    @property
    def backend(self) -> str:
        """As `mova_runtime.open` takes it, beside the precision of `most`."""
        own = [f"{name}={one.backend}:{one.precision}" for name, one in self.others.items()]
        return ",".join([self.most.backend, *own])

    def __str__(self) -> str:
        own = [f"{name}={one.backend}:{one.precision}" for name, one in self.others.items()]
        return ",".join([f"{self.most.backend}:{self.most.precision}", *own])

    def by(self, component: str) -> Candidate:
        """What serves a component."""
        return self.others.get(component, self.most)

    def of(self, names: Collection[str]) -> Served:
        """The same for these components alone."""
        return Served(self.most, {name: one for name, one in self.others.items() if name in names})


def served(bundle: Bundle, fastest: Mapping[str, Candidate]) -> Served:
    """Each component's fastest; one that was not measured is served by what serves most."""
    ((most, _),) = Counter(fastest.values()).most_common(1)
    others = {name: one for name, one in fastest.items() if one != most and name in bundle.manifest.components}
    return Served(most, others)


def routes(bundle: Bundle, asked: Sequence[str] | None) -> tuple[Route, ...]:
    """The routes to measure.

    Args:
        bundle: has the experts.
        asked: such as "none" or "dinov2+sam"; None is none, each expert, two typical pairs and a triple, as far as
            the bundle has them.

    Raises:
        BenchError: an expert is not in the bundle, or something is named twice.
    """
    experts = [expert.name for expert in bundle.manifest.vision.experts if expert.name in bundle.manifest.components]
    if asked is None:
        wanted = [(), *((name,) for name in experts), *_PAIRS, _TRIPLE]
        return tuple(Route(names) for names in wanted if set(names) <= set(experts))
    found = tuple(_read(text, experts) for text in asked)
    if twice := next((str(route) for route in found if found.count(route) > 1), None):
        raise BenchError(f"route {twice} is named twice")
    return found


def lacking(bundle: Bundle) -> list[str]:
    """What requests take that the bundle has not."""
    return [name for name in NEEDED if name not in bundle.manifest.components]


def measure(route: Route, by: Served, bundle: Bundle, threads: int, budget: int | None = None) -> dict[str, Any]:
    """A route in a process of its own; what goes wrong is in its `error`. `budget`: bytes that engines may take."""
    by = by.of(names_of(bundle, [route]))
    named = {"experts": list(route.experts), "kind": route.kind, "backend": str(by)}
    try:
        with Worker() as worker:
            found = worker.ask("route", **_opening(by, bundle, threads), experts=route.experts, memory_budget=budget)
    except WorkerError as error:
        return {**named, **_NOTHING, "error": str(error)}
    return {**named, **found, "error": None}


def names_of(bundle: Bundle, found: Sequence[Route]) -> list[str]:
    """The components that requests of these routes take."""
    experts = dict.fromkeys(name for route in found for name in route.experts)
    return [name for name in (*NEEDED, *experts, LANGUAGE_MODEL) if name in bundle.manifest.components]


def know(found: Sequence[Route], by: Served, bundle: Bundle, threads: int) -> list[str]:
    """Have every engine of these routes checked, in a process of its own; those that were not known.

    Raises:
        WorkerError: one of them is not to be used here.
    """
    wanted = names_of(bundle, found)
    with Worker() as worker:
        checked: list[str] = worker.ask("know", **_opening(by, bundle, threads), components=wanted)["checked"]
    return checked


def _opening(by: Served, bundle: Bundle, threads: int) -> dict[str, Any]:
    return {
        "bundle": str(bundle.root.absolute()),
        "backend": by.backend,
        "precision": by.most.precision,
        "threads": threads,
    }


_NOTHING: dict[str, Any] = {
    "first_visual_token": None,
    "first_answer_token": None,
    "tokens_per_second": None,
    "second_question": None,
    "memory": None,
    "hidden": None,
    "stages": [],
}


def _read(text: str, experts: Sequence[str]) -> Route:
    names = () if text == NONE else tuple(text.split("+"))
    if unknown := [name for name in names if name not in experts]:
        raise BenchError(f"route {text!r}: no expert {unknown[0]!r} in the bundle; it has {', '.join(experts)}")
    if len(set(names)) < len(names):
        raise BenchError(f"route {text!r}: an expert is named twice")
    return Route(names)
