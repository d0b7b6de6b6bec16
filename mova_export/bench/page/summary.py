"""What the numbers say, in a few sentences."""

from __future__ import annotations

from dataclasses import dataclass

from mova_export.bench.page.format import SHARE, count, digits, enumerated, quantity, seconds, size
from mova_export.bench.page.markup import Markup, tag
from mova_export.bench.page.read import Results, at, entries, named, number, text
from mova_export.bench.page.routes import experts

_BUSY = 0.5
"""Load average a core from which another's work will have been measured, too."""


@dataclass(frozen=True)
class Beside:
    """A component's fastest backend of ours, and torch's time that it is held against."""

    component: str
    ours: str
    theirs: str
    ratio: float


def summary(results: Results) -> Markup | None:
    """Sentences of what is there to tell."""
    told = [*_fastest(results), *_beside_torch(results), *_requests(results), *_memory(results), *_caveats(results)]
    return (
        tag("section", tag("h2", "In short"), tag("ul", [tag("li", line) for line in told]), id="summary")
        if told
        else None
    )


def beside_torch(results: Results) -> list[Beside]:
    """For each component, its fastest of ours beside the quickest of torch's: the one with the largest ratio."""
    found = []
    for name, component in named(results, "components").items():
        ours = text(component, "fastest")
        pairs = {theirs: number(pair, "median") for theirs, pair in named(component, "ratios", ours or "").items()}
        known = {theirs: ratio for theirs, ratio in pairs.items() if ratio is not None}
        if ours and known:
            theirs = max(known, key=lambda theirs: known[theirs])
            found.append(Beside(name, ours, theirs, known[theirs]))
    return found


def _fastest(results: Results) -> list[str]:
    by_label: dict[str, list[str]] = {}
    for name, component in named(results, "components").items():
        label = text(component, "fastest")
        if label:
            by_label.setdefault(label, []).append(name)
    return [f"{label} is our fastest for {enumerated(names)}." for label, names in by_label.items()]


def _beside_torch(results: Results) -> list[str]:
    found = sorted(beside_torch(results), key=lambda pair: pair.ratio)
    if not found:
        return []
    best, worst = found[0], found[-1]
    line = (
        f"Beside the fastest torch of the same run, {best.component} gains most: {best.ours} takes {best.ratio:.2f} of "
        f"the time of {best.theirs}"
    )
    if len(found) > 1:
        line += f"; {worst.component} least: {worst.ratio:.2f} of {worst.theirs}"
    quicker = sum(pair.ratio < 1 for pair in found)
    return [f"{line}. {quicker} of {len(found)} components are faster than torch."]


def _requests(results: Results) -> list[str]:
    routes = entries(results, "routes")
    timed = [(route, number(route, "first_visual_token", "resident")) for route in routes]
    known = sorted(((value, experts(route)) for route, value in timed if value is not None))
    if not known:
        return []
    (least, quickest), (most, slowest) = known[0], known[-1]
    line = f"With engines resident, the first visual token is there after {seconds(least)} ({quickest})"
    return [f"{line}." if least == most else f"{line} to {seconds(most)} ({slowest})."]


def _memory(results: Results) -> list[str]:
    peak, share = number(results, "everything", "memory", "peak"), number(results, "everything", "one_expert_share")
    one = number(results, "everything", "one_expert_mean")
    if share is None:
        return []
    sizes = f" ({size(one)} of {size(peak)})" if one is not None and peak is not None else ""
    return [f"A request with one expert peaks at {quantity(share, SHARE)} of the memory that everything takes{sizes}."]


def _caveats(results: Results) -> list[str]:
    runs = [run for component in named(results, "components").values() for run in entries(component, "contenders")]
    failed = sum(bool(text(run, "error")) for run in runs)
    lines = []
    if at(results, "complete") is False:
        lines.append("The benchmark did not come to its end; this is what it found until then.")
    if failed:
        lines.append(f"{failed} of {len(runs)} could not be measured; the reasons stand beside them.")
    load, cores = number(results, "load", "start"), number(results, "machine", "cores")
    if load is not None and cores and load / cores > _BUSY:
        lines.append(
            f"The machine was busy when this began (load average {digits(load)} on {count(cores)} cores): "
            "times may be too long."
        )
    return lines
