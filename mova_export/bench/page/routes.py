"""Pictures of whole requests, by the experts they use: times, and what of the loading nobody waited for."""

from __future__ import annotations

from mova_export.bench.page.bars import Bar, panel, panels
from mova_export.bench.page.colours import swatch
from mova_export.bench.page.format import DASH, RATIO, SECONDS, digits, quantity, seconds, size
from mova_export.bench.page.markup import Markup, tag
from mova_export.bench.page.read import Results, entries, named, number, text, texts
from mova_export.bench.page.scale import Scale
from mova_export.bench.page.section import section

_TIMES = (
    ("visual, fresh", "c1", ("first_visual_token", "fresh")),
    ("visual, resident", "c6", ("first_visual_token", "resident")),
    ("answer, fresh", "c2", ("first_answer_token", "fresh")),
    ("answer, resident", "c5", ("first_answer_token", "resident")),
    ("second question", "c3", ("second_question",)),
)


def experts(route: Results) -> str:
    """A route's name."""
    return " + ".join(texts(route, "experts")) or "no expert"


def times(results: Results) -> Markup | None:
    """Time to the first visual and answer token, and of a second question, on one scale."""
    routes = entries(results, "routes")
    if not routes:
        return None
    scale = Scale.of((number(route, *keys) for route in routes for *_, keys in _TIMES), SECONDS)
    backends = {told.replace(",", ", ") for route in routes if (told := text(route, "backend"))}
    found = []
    for route in routes:
        bars = [
            Bar(label, colour, value, seconds(value), tip=f"{label}: {seconds(value)}")
            for label, colour, keys in _TIMES
            if (value := number(route, *keys)) is not None
        ]
        failed = text(route, "error")
        if failed:
            bars.append(Bar("failed", "c4", None, DASH, error=failed))
        found.append(panel(experts(route), _facts(route, tell_backend=len(backends) > 1), bars, scale))
    about = (
        "To the first visual token and the first token of the answer: fresh from files, and with engines resident. "
        "The second question is about the same image. One scale for all."
    )
    if len(backends) == 1:
        about += f" Served by {', '.join(backends)}."
    return section("routes", "Whole requests", about, panels(found))


def hidden(results: Results) -> Markup | None:
    """Of each fresh request's loading, what it waited for and what went on meanwhile."""
    routes = [route for route in entries(results, "routes") if named(route, "hidden")]
    values = [
        (experts(route), number(route, "hidden", "waited"), number(route, "hidden", "hidden"), _whole(route))
        for route in routes
    ]
    values = [value for value in values if value[1] is not None or value[2] is not None]
    if not values:
        return None
    bars = []
    for name, waited, away, whole in values:
        covered = (waited or 0.0) + (away or 0.0)
        part = f", {digits(100 * (away or 0.0) / whole)} % hidden" if whole else ""
        tip = f"{name}: waited {seconds(waited)}, hidden {seconds(away)}{part}"
        bars.append(Bar(name, "c1", waited or 0.0, f"{seconds(waited)} / {seconds(away)}", upto=covered, tip=tip))
    scale = Scale.of((bar.upto for bar in bars), SECONDS)
    kinds = (("waited for", ""), ("hidden behind other work", "faint"))
    legend = tag("ul", [tag("li", swatch(f"c1 {kind}"), name) for name, kind in kinds], class_="legend")
    about = (
        "Loading of engines in a fresh request: the router's choice is announced, and loaded while others still run."
    )
    whole_panel = tag("div", panel("Loading", "", bars, scale, ticks=4, kind="panel double"), class_="panels one")
    return section("hidden", "What was hidden", about, legend, whole_panel)


def _whole(route: Results) -> float | None:
    return number(route, "hidden", "loading")


def _facts(route: Results, *, tell_backend: bool) -> str:
    speed, peak = number(route, "tokens_per_second"), number(route, "memory", "peak")
    facts = [
        text(route, "backend") if tell_backend else None,
        f"{quantity(speed, RATIO)} tokens/s" if speed is not None else None,
        f"peak {size(peak)}" if peak is not None else None,
    ]
    return " · ".join(fact for fact in facts if fact)
