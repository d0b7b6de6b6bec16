"""Pictures of components: how long they run, how they load, what they hold, and how much of the machine they use."""

from __future__ import annotations

from mova_export.bench.page import format as written
from mova_export.bench.page.bars import Bar, panel, panels
from mova_export.bench.page.colours import colours, legend, swatch
from mova_export.bench.page.format import BYTES, OPERATIONS, RATE, SECONDS, SHARE, quantity
from mova_export.bench.page.markup import Markup, tag
from mova_export.bench.page.read import Results, entries, named, number, text
from mova_export.bench.page.scale import Scale
from mova_export.bench.page.section import section


def latency(results: Results) -> Markup | None:
    """Median time of a run, from the tenth to the 95th percentile; each component on a scale of its own."""
    classes, found = colours(results), []
    for name, component in named(results, "components").items():
        runs = entries(component, "contenders")
        ends = [number(run, "run", key) for run in runs for key in ("median", "p95")]
        bars = [_timed(run, classes, text(component, "fastest")) for run in runs]
        if bars:
            found.append(panel(name, _size(component), bars, Scale.of(ends, SECONDS)))
    if not found:
        return None
    about = (
        "Bars are medians, whiskers reach from the 10th to the 95th percentile. "
        "Every component has a scale of its own, from zero."
    )
    if any(class_.startswith("t") for class_ in classes.values()):
        about += " Hatched is torch."
    return section("latency", "Time of a run", about, legend(classes), panels(found))


def overview(results: Results) -> Markup | None:
    """The fastest of ours, all components on one scale."""
    found = []
    for name, component in named(results, "components").items():
        for contender in entries(component, "contenders"):
            label = text(contender, "label")
            if label and label == text(component, "fastest") and number(contender, "run", "median") is not None:
                found.append((name, label, number(contender, "run", "median")))
    if len(found) < 2:
        return None
    classes, scale = colours(results), Scale.of((median for *_, median in found), SECONDS)
    bars = [
        Bar(name, classes[label], median, written.seconds(median), tip=f"{name}: {label}")
        for name, label, median in found
    ]
    used = {label: classes[label] for label in dict.fromkeys(label for _, label, _ in found)}
    about = "A run of the fastest backend of each component, all on one scale."
    whole = tag("div", panel("Fastest of ours", "", bars, scale, ticks=4), class_="panels one")
    return section("overview", "Components side by side", about, legend(used), whole)


def memory(results: Results) -> Markup | None:
    """Host memory, and the device's where there is one: solid when loaded, faint at its peak."""
    made = _pairs(results, ("memory", "loaded"), ("memory", "peak"), BYTES)
    device = _pairs(results, ("device_memory", "loaded"), ("device_memory", "peak"), BYTES)
    if not made and not device:
        return None
    about = (
        "Of the process, above what it held before. Mapped files count as far as they are in memory. One scale for all."
    )
    parts: list[Markup | None] = [_two(("loaded", ""), ("peak", "faint"))]
    parts.append(panels(made) if made else None)
    if device:
        parts += [tag("h3", "On the device", class_="apart"), panels(device)]
    return section("memory", "Memory", about, *parts)


def loading(results: Results) -> Markup | None:
    """Solid from a warm file cache, faint from a cold one."""
    made = _pairs(results, ("load_warm",), ("load_cold",), SECONDS)
    if not made:
        return None
    about = "From files to an engine that is ready to run: warm / cold. One scale for all."
    return section("load", "Loading", about, _two(("warm file cache", ""), ("cold", "faint")), panels(made))


def share(results: Results) -> Markup | None:
    """What of the measured matrix rate each component reaches."""
    classes, found = colours(results), []
    rates = {name: number(rate) for name, rate in named(results, "matrix_rate").items()}
    if rates:
        bars = [Bar(name, classes.get(name, "t1"), rate, quantity(rate, RATE)) for name, rate in rates.items()]
        found.append(panel("Large matrix products", "", bars, Scale.of(rates.values(), RATE), 2, "panel long"))
    for name, component in named(results, "components").items():
        bars = []
        for run in entries(component, "contenders"):
            value = number(run, "share")
            if value is not None:
                tip = f"{text(run, 'label')}: {quantity(number(run, 'rate'), RATE)}"
                bars.append(Bar(*_label(run, classes), value, quantity(value, SHARE), tip=tip))
        if bars:
            note = quantity(number(component, "operations"), OPERATIONS) + " a run"
            found.append(panel(name, note, bars, Scale.of((1.0, *(bar.value for bar in bars)), SHARE)))
    if not found:
        return None
    about = (
        "Floating-point operations of a run by its median time, as a share of the best rate at which this machine "
        "was seen to multiply large matrices."
    )
    return section("share", "Share of the matrix rate", about, panels(found))


def _pairs(
    results: Results, solid: tuple[str, ...], faint: tuple[str, ...], units: tuple[written.Unit, ...]
) -> list[Markup]:
    """A panel a component of bars with a solid and a faint part, all on one scale."""
    classes, components = colours(results), named(results, "components")
    contenders = {name: entries(component, "contenders") for name, component in components.items()}
    scale = Scale.of(
        (number(run, *keys) for runs in contenders.values() for run in runs for keys in (solid, faint)), units
    )
    found = []
    for name, runs in contenders.items():
        bars = []
        for run in runs:
            first, last = number(run, *solid), number(run, *faint)
            if first is None and last is None:
                continue
            shown = f"{quantity(first, units)} / {quantity(last, units)}"
            bars.append(Bar(*_label(run, classes), first, shown, upto=last))
        if bars:
            found.append(panel(name, "", bars, scale, kind="panel double"))
    return found


def _timed(run: Results, classes: dict[str, str], fastest: str | None) -> Bar:
    label, colour = _label(run, classes)
    median, low, high = (number(run, "run", key) for key in ("median", "p10", "p95"))
    count = number(run, "run", "count")
    tip = f"{label}: median {written.seconds(median)}, p10–p95 {written.spread(low, high, SECONDS)}"
    tip += f", {count:.0f} runs" if count is not None else ""
    return Bar(
        label,
        colour,
        median,
        written.seconds(median),
        whisker=(low, high),
        error=text(run, "error"),
        strong=label == fastest,
        tip=tip,
    )


def _label(run: Results, classes: dict[str, str]) -> tuple[str, str]:
    label = text(run, "label") or "?"
    return label, classes.get(label, "t1")


def _size(component: Results) -> str:
    parameters = number(component, "parameters")
    return f"{quantity(parameters, written.COUNT)} parameters" if parameters is not None else ""


def _two(*named_: tuple[str, str]) -> Markup:
    """A legend of what is solid and what is faint."""
    return tag("ul", [tag("li", swatch(f"c1 {kind}"), name) for name, kind in named_], class_="legend")
