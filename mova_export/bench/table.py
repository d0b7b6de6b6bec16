"""Results as lines of a table, each ready as soon as it was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from mova_export.bench.figures import Figures, Measured
from mova_export.bench.timing import Spread
from mova_runtime.bundle.manifest import Component
from mova_runtime.engines.memory import format_size

_LABEL = 19
HEAD = (
    f"{'':{_LABEL}}{'median':>10}{'p95':>10}{'a second':>10}{'first':>10}{'cold load':>11}{'warm load':>11}"
    f"{'holds':>11}{'peak':>11}{'rate':>7}{'cosine':>10}"
)


def head(name: str, component: Component) -> str:
    """Above a component's contenders."""
    counted = "" if component.operations is None else f", {component.operations / 1e9:,.2f} GFLOP"
    return f"{name}: {component.parameters / 1e6:,.1f} million parameters{counted}"


def contenders(found: Measured, matrix_rate: Mapping[str, float]) -> Iterator[str]:
    """A line for each of a component's contenders."""
    best = max(matrix_rate.values(), default=None)
    for label, figures in found.contenders.items():
        yield from _contender(label, figures, found, best)


def rates(matrix_rate: Mapping[str, float]) -> str:
    """What large matrix products reach."""
    each = ", ".join(f"{label} {rate / 1e9:,.0f}" for label, rate in matrix_rate.items())
    return f"matrix rates, GFLOP/s: {each or 'not known'}"


def routes_head() -> str:
    """Above the routes."""
    return (
        f"\n{'route':{_LABEL}}{'visual tokens':>14}{'resident':>10}{'answer':>10}{'resident':>10}{'tokens/s':>10}"
        f"{'2nd question':>14}{'peak':>11}{'loading':>10}{'hidden':>10}"
    )


def route(found: Mapping[str, Any]) -> str:
    """A route."""
    name = "+".join(found["experts"]) or "none"
    if found["error"]:
        return f"{name:{_LABEL}}FAILED: {found['error']}"
    answer = found["first_answer_token"] or {"fresh": None, "resident": None}
    speed = found["tokens_per_second"]
    return (
        f"{name:{_LABEL - 1}} {seconds(found['first_visual_token']['fresh']):>14}"
        f"{seconds(found['first_visual_token']['resident']):>10}{seconds(answer['fresh']):>10}"
        f"{seconds(answer['resident']):>10}{'-' if speed is None else f'{speed:.1f}':>10}"
        f"{seconds(found['second_question']):>14}{format_size(found['memory']['peak']):>11}"
        f"{seconds(found['hidden']['loading']):>10}{seconds(found['hidden']['hidden']):>10}"
    )


def everything(found: Mapping[str, Any]) -> str:
    """All components at once."""
    how = "" if found["measured"] else ", by what each of them takes: there is no room for all"
    said = f"everything loaded: {format_size(found['memory']['peak'])}{how}"
    if found["one_expert_share"] is None:
        return said
    mean = format_size(found["one_expert_mean"])
    return f"{said}; a request with one expert: {mean} on average, {found['one_expert_share']:.2f} of it"


def seconds(value: float | None) -> str:
    """A time with three digits."""
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1e3:.3g} ms" if value * 1e3 < 1000 else "1.00 s"
    return f"{value:.2f} s" if value < 10 else f"{value:,.1f} s"


def _contender(label: str, figures: Figures, found: Measured, best: float | None) -> Iterator[str]:
    head = f"  {label:{_LABEL - 2}}"
    if figures.times:
        spread = Spread.of(figures.times)
        rate = found.operations / spread.median if found.operations else None
        memory = figures.memory or {"loaded": 0, "peak": 0}
        share = "-" if rate is None or best is None else f"{rate / best:.0%}"
        cosine = f"{figures.parity['cosine']:.6f}" if figures.parity else "-"
        against = [
            f"{median(sample):.2f} of {other}"
            for (mine, other), sample in found.ratios.items()
            if mine == label and sample
        ]
        yield (
            f"{head}{seconds(spread.median):>10}{seconds(spread.p95):>10}{1 / spread.median:>10.4g}"
            f"{seconds(figures.first_run):>10}{seconds(figures.load_cold):>11}{seconds(figures.load_warm):>11}"
            f"{format_size(memory['loaded']):>11}{format_size(memory['peak']):>11}{share:>7}{cosine:>10}"
            + (f"  {', '.join(against)}" if against else "")
        )
    if figures.error:
        yield f"{head} FAILED: {figures.error}"
