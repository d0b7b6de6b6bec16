"""Panels of horizontal bars. Only what is drawn stretches with the page; texts beside it keep their size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mova_export.bench.page.markup import Markup, tag
from mova_export.bench.page.scale import Scale

_HEIGHT, _TOP, _BAR = 18, 3, 12


@dataclass(frozen=True)
class Bar:
    """A labelled bar.

    value: where its solid part ends; None draws none. upto: where its faint part ends, further than the solid one.
    whisker: from where to where. shown: its value as text. error: told instead of everything else. strong: stands out.
    """

    label: str
    colour: str
    value: float | None
    shown: str
    upto: float | None = None
    whisker: tuple[float | None, float | None] = (None, None)
    error: str | None = None
    strong: bool = False
    tip: str = ""


def panel(title: str, note: str, bars: Sequence[Bar], scale: Scale, ticks: int = 3, kind: str = "panel") -> Markup:
    """Bars under a title, and the scale under them.

    `kind` "panel double" has room for two values a row, "panel long" for one with a long unit: panels of one scale are
    drawn equally wide.
    """
    drawn = any(bar.value is not None and not bar.error for bar in bars)
    head = tag("h3", title, tag("span", note, class_="note") if note else None)
    rows = [_row(bar, scale, ticks) for bar in bars]
    return tag("div", head, rows, _axis(scale, ticks) if drawn else None, class_=kind)


def panels(content: Sequence[Markup]) -> Markup:
    """Panels beside each other, as many as there is room for."""
    return tag("div", content, class_="panels")


def _row(bar: Bar, scale: Scale, ticks: int) -> Markup:
    label = tag("span", bar.label, class_="label")
    if bar.error:
        return tag("div", label, tag("span", bar.error, class_="error"), class_="bar")
    kind = "bar strong" if bar.strong else "bar"
    return tag("div", label, _drawing(bar, scale, ticks), tag("span", bar.shown, class_="value"), class_=kind)


def _drawing(bar: Bar, scale: Scale, ticks: int) -> Markup:
    parts = [_line(scale.place(value), "grid") for value, _ in scale.ticks(ticks)]
    solid = 0.0 if bar.value is None else scale.place(bar.value)
    if bar.upto is not None and (upto := scale.place(bar.upto)) > solid:
        parts.append(_box(solid, upto - solid, "faint"))
    if bar.value is not None:
        parts.append(_box(0.0, solid, "solid"))
    low, high = bar.whisker
    if bar.value is not None and low is not None and high is not None:
        left, right, middle = scale.place(low), scale.place(high), _TOP + _BAR / 2
        for kind in ("halo", "whisker"):  # the halo sets it off from the bar
            parts.append(
                tag("line", x1=f"{left:.2f}%", x2=f"{right:.2f}%", y1=middle, y2=middle, class_=kind),
            )
            parts += [_line(end, kind, middle - 3, middle + 3) for end in (left, right)]
    tip = tag("title", bar.tip or f"{bar.label}: {bar.shown}")
    return tag("svg", tip, parts, width="100%", height=_HEIGHT, class_=f"drawing {bar.colour}", role="img")


def _axis(scale: Scale, ticks: int) -> Markup:
    """Values under the lines; the last one ends where the picture does when it is near its end."""
    written = []
    for value, name in scale.ticks(ticks):
        place = scale.place(value)
        anchor = "start" if place < 3 else "end" if place > 92 else "middle"
        written.append(tag("text", name, x=f"{place:.2f}%", y=11, text_anchor=anchor))
    drawing = tag("svg", written, width="100%", height=14, class_="axis", aria_hidden="true")
    return tag("div", tag("span", class_="label"), drawing, tag("span", class_="value"), class_="bar")


def _box(place: float, width: float, kind: str) -> Markup:
    given = {"x": f"{place:.2f}%", "width": f"{max(width, 0.3):.2f}%"}
    return tag("rect", y=_TOP, height=_BAR, class_=kind, **given)


def _line(place: float, kind: str, top: float = 0, end: float = _HEIGHT) -> Markup:
    where = f"{place:.2f}%"
    return tag("line", x1=where, x2=where, y1=top, y2=end, class_=kind)
