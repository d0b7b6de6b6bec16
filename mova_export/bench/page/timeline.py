"""One request from its begin to its answer: every stage as a block, every thread a lane."""

from __future__ import annotations

from dataclasses import dataclass

from mova_export.bench.page.colours import swatch
from mova_export.bench.page.format import SECONDS, seconds
from mova_export.bench.page.markup import Markup, tag
from mova_export.bench.page.read import Results, entries, number, text
from mova_export.bench.page.routes import experts
from mova_export.bench.page.scale import Scale
from mova_export.bench.page.section import section

_KINDS = {"load": "c2", "check": "c5", "wait": "t1", "preprocess": "c4", "run": "c1", "answer": "c3"}
_NAMES = {"load": "load", "check": "check", "wait": "wait", "preprocess": "prepare the image", "run": "run"}
_ANSWERING = ("route", "answer", "prefill", "decode", "llm")
_ROW, _BLOCK = 24, 20
_LETTER = 0.68, 2.3
"""A letter's width in per cent of a lane, on a wide and on a narrow screen."""


@dataclass(frozen=True)
class Stage:
    """A named stretch of time in a thread, in seconds from the request's begin."""

    name: str
    start: float
    duration: float
    thread: str

    @property
    def end(self) -> float:
        """When it was over."""
        return self.start + self.duration

    @property
    def kind(self) -> str:
        """By which it is coloured."""
        word = self.name.partition(" ")[0]
        return word if word in _KINDS else "answer" if word in _ANSWERING else "run"


def timeline(results: Results) -> Markup | None:
    """The fresh request with the most stages."""
    routes = [(route, stages(route)) for route in entries(results, "routes")]
    route, shown = max(routes, key=lambda pair: len(pair[1]), default=({}, []))
    if not shown:
        return None
    scale = Scale.of((stage.end for stage in shown), SECONDS)
    lanes = [_lane(name, rows, scale) for name, rows in threads(shown).items()]
    kinds = list(dict.fromkeys(stage.kind for stage in shown))
    key = [
        tag("li", swatch(f"{_KINDS[kind]} {_fill(kind)}"), _NAMES.get(kind, kind)) for kind in _KINDS if kind in kinds
    ]
    about = f"A fresh request with {experts(route)}: a block a stage, a lane a thread."
    drawing = tag("div", lanes, _axis(scale), class_="timeline")
    listed = tag("details", tag("summary", f"All {len(shown)} stages"), _listed(shown))
    return section("timeline", "One request", about, tag("ul", key, class_="legend"), drawing, listed)


def stages(route: Results) -> list[Stage]:
    """A route's stages by start; those without a time are left out."""
    found = []
    for entry in entries(route, "stages"):
        start, duration = number(entry, "start"), number(entry, "duration")
        if start is not None and duration is not None:
            found.append(Stage(text(entry, "name") or "?", start, max(duration, 0.0), text(entry, "thread") or "?"))
    return sorted(found, key=lambda stage: (stage.start, -stage.duration))


def threads(shown: list[Stage]) -> dict[str, list[list[Stage]]]:
    """Each thread's stages in rows: one that begins within another comes into the row below."""
    lanes: dict[str, list[list[Stage]]] = {}
    for stage in shown:
        rows = lanes.setdefault(stage.thread, [])
        free = next((row for row in rows if row[-1].end <= stage.start), None)
        if free is None:
            rows.append([stage])
        else:
            free.append(stage)
    return lanes


def _lane(name: str, rows: list[list[Stage]], scale: Scale) -> Markup:
    height = _ROW * len(rows)
    lines = [_rule(scale.place(value), height) for value, _ in scale.ticks(6)]
    blocks = [_block(stage, index, scale) for index, row in enumerate(rows) for stage in row]
    drawing = tag("svg", lines, blocks, width="100%", height=height, role="img", aria_label=f"Stages of {name}")
    return tag("div", tag("span", name, class_="label"), drawing, class_="lane")


def _block(stage: Stage, row: int, scale: Scale) -> Markup:
    place = scale.place(stage.start)
    width = max(scale.place(stage.end) - place, 0.15)
    tip = tag("title", f"{stage.name}: {seconds(stage.duration)} from {seconds(stage.start)}")
    box = tag("rect", width="100%", height=_BLOCK, rx=2, class_=_fill(stage.kind))
    kind = _fits(stage.name, width)
    name = tag("text", stage.name, x=4, y=14, class_=kind) if kind else None
    where = {"x": f"{place:.3f}%", "width": f"{width:.3f}%"}  # what lies outside of it is cut off
    colour = _KINDS[stage.kind]
    return tag("svg", tip, box, name, y=row * _ROW + 2, height=_BLOCK, class_=f"stage {colour}", **where)


def _fill(kind: str) -> str:
    """Nothing is done in a wait, so it is faint."""
    return "faint" if kind == "wait" else "solid"


def _fits(name: str, width: float) -> str | None:
    """On which screens a name has room in its block."""
    wide, narrow = (letter * (len(name) + 1) for letter in _LETTER)
    return "always" if narrow <= width else "wide" if wide <= width else None


def _rule(place: float, height: int) -> Markup:
    return tag("line", x1=f"{place:.2f}%", x2=f"{place:.2f}%", y1=0, y2=height, class_="grid")


def _axis(scale: Scale) -> Markup:
    written = []
    for value, name in scale.ticks(6):
        place = scale.place(value)
        anchor = "start" if place < 3 else "end" if place > 96 else "middle"
        written.append(tag("text", name, x=f"{place:.2f}%", y=11, text_anchor=anchor))
    drawing = tag("svg", written, width="100%", height=14, class_="axis", aria_hidden="true")
    return tag("div", tag("span", class_="label"), drawing, class_="lane")


def _listed(shown: list[Stage]) -> Markup:
    head = tag("tr", [tag("th", name) for name in ("stage", "start", "time", "thread")])
    rows = [
        tag("tr", tag("th", stage.name), [tag("td", seconds(value)) for value in (stage.start, stage.duration)],
            tag("td", stage.thread, class_="word"))
        for stage in shown
    ]  # fmt: skip
    return tag("div", tag("table", tag("thead", head), tag("tbody", rows)), class_="wide")
