"""Every number that was measured, and what they are beside torch."""

from __future__ import annotations

from collections.abc import Sequence

from mova_export.bench.page.format import (
    BYTES,
    DASH,
    JOULES,
    RATE,
    RATIO,
    SECONDS,
    SHARE,
    WATTS,
    Unit,
    count,
    digits,
    quantity,
    spread,
)
from mova_export.bench.page.markup import Content, Markup, tag
from mova_export.bench.page.read import Results, at, entries, named, number, text
from mova_export.bench.page.section import section

_COLUMNS: tuple[tuple[str, tuple[Unit, ...], tuple[str, ...]], ...] = (
    ("median", SECONDS, ("run", "median")),
    ("p95", SECONDS, ("run", "p95")),
    ("first run", SECONDS, ("first_run",)),
    ("runs/s", RATIO, ("per_second",)),
    ("load cold", SECONDS, ("load_cold",)),
    ("load warm", SECONDS, ("load_warm",)),
    ("engine", BYTES, ("engine_bytes",)),
    ("loaded", BYTES, ("memory", "loaded")),
    ("peak", BYTES, ("memory", "peak")),
    ("device loaded", BYTES, ("device_memory", "loaded")),
    ("device peak", BYTES, ("device_memory", "peak")),
    ("rate", RATE, ("rate",)),
    ("share", SHARE, ("share",)),
    ("energy a run", JOULES, ("energy", "joules_per_run")),
    ("power", WATTS, ("energy", "watts")),
)
_SPREAD = 1
"""Before which column p10–p90 comes."""


def numbers(results: Results) -> Markup | None:
    """One row a contender; columns that nobody filled are left out."""
    components = named(results, "components")
    found = [run for component in components.values() for run in entries(component, "contenders")]
    if not found:
        return None
    columns = [column for column in _COLUMNS if any(number(run, *column[2]) is not None for run in found)]
    columns.insert(_SPREAD, ("p10–p90", SECONDS, ()))
    judged = any(at(run, "parity") for run in found)
    clocked = any(named(run, "energy", "clocks") for run in found)
    titles = ["contender", *(title for title, *_ in columns)]
    titles += ["parity"] * judged + ["clocks"] * clocked
    body: list[Markup] = []
    for name, component in components.items():
        runs = entries(component, "contenders")
        if runs:
            body.append(tag("tr", tag("th", name, colspan=len(titles), class_="group")))
        for run in runs:
            cells: list[Content] = [tag("th", text(run, "label") or "?")]
            if failed := text(run, "error"):
                cells.append(tag("td", failed, colspan=len(titles) - 1, class_="error"))
            else:
                cells += [tag("td", _cell(run, units, keys)) for _, units, keys in columns]
                cells += [tag("td", _parity(run))] * judged
                cells += [tag("td", _clocks(run), class_="word")] * clocked
            best = text(run, "label") == text(component, "fastest")
            body.append(tag("tr", cells, class_="best" if best else None))
    about = "Times in milliseconds below one second. The fastest of ours is set in bold."
    if judged:
        about += " Parity: ‖x - y‖₂ / ‖y‖₂ of the output that is furthest from torch's float32."
    return section("numbers", "All numbers", about, _table(titles, body))


def ratios(results: Results) -> Markup | None:
    """Ours in parts of torch's time, from runs that were neighbours in time; a column a pair of contenders."""
    found: dict[str, dict[str, Results]] = {}
    for name, component in named(results, "components").items():
        for ours, others in named(component, "ratios").items():
            for theirs in named(others):
                if number(others, theirs, "median") is not None:
                    found.setdefault(name, {})[f"{ours} / {theirs}"] = others[theirs]
    titles = list(dict.fromkeys(pair for pairs in found.values() for pair in pairs))
    if not titles:
        return None
    body = [tag("tr", tag("th", name), [_ratio(pairs.get(title)) for title in titles]) for name, pairs in found.items()]
    about = (
        "Our time divided by torch's, of pairs of runs next to each other in time, and p10–p90 of these; "
        "less than 1 is faster, and set in bold."
    )
    return section("ratios", "Beside torch", about, _table(["component", *titles], body))


def _ratio(pair: Results | None) -> Markup:
    median, low, high, pairs = (number(pair, key) for key in ("median", "p10", "p90", "count"))
    if median is None:
        return tag("td", DASH)
    told = tag("span", spread(low, high, RATIO), class_="note")
    tip = f"{count(pairs)} pairs" if pairs is not None else None
    return tag("td", quantity(median, RATIO), told, title=tip, class_="better" if median < 1 else None)


def _table(titles: Sequence[str], body: Sequence[Markup]) -> Markup:
    head = tag("tr", [tag("th", title, scope="col") for title in titles])
    return tag("div", tag("table", tag("thead", head), tag("tbody", body)), class_="wide", tabindex=0)


def _cell(run: Results, units: tuple[Unit, ...], keys: tuple[str, ...]) -> str:
    if not keys:
        return spread(number(run, "run", "p10"), number(run, "run", "p90"), units)
    return quantity(number(run, *keys), units)


def _parity(run: Results) -> str:
    """The distance, and where it is too large, that it is."""
    passed, distance = at(run, "parity", "passed"), number(run, "parity", "relative_l2")
    told = "failed" if passed is False else "passed" if passed is True and distance is None else None
    return ", ".join(filter(None, (told, f"{distance:.1e}" if distance is not None else None))) or DASH


def _clocks(run: Results) -> str:
    found = {name: number(value) for name, value in named(run, "energy", "clocks").items()}
    return ", ".join(f"{name} {digits(value)} MHz" for name, value in found.items() if value is not None) or DASH
