"""What the page is made of: numbers and their units, scales, colours that can be told apart, lanes."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from mova_export.bench import page
from mova_export.bench.page import format as written
from mova_export.bench.page.colours import OURS, THEIRS, colours
from mova_export.bench.page.format import BYTES, COUNT, RATE, SECONDS, SHARE
from mova_export.bench.page.markup import Markup, tag
from mova_export.bench.page.scale import Scale
from mova_export.bench.page.timeline import Stage, stages, threads

GIB = 2.0**30
STYLE = Path(page.__file__).with_name("page.css").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value", "units", "expected"),
    [
        (None, SECONDS, "–"),
        (0.0, SECONDS, "0 ms"),
        (0.0000123, SECONDS, "0.0123 ms"),
        (0.05, SECONDS, "50.0 ms"),
        (0.9994, SECONDS, "999 ms"),
        (0.9996, SECONDS, "1.00 s"),  # and not 1,000 ms
        (9.996, SECONDS, "10.0 s"),
        (89.94, SECONDS, "89.9 s"),
        (1234.5, SECONDS, "1,234 s"),
        (-0.5, SECONDS, "-500 ms"),
        (512, BYTES, "512 B"),
        (1.5 * 2**20, BYTES, "1.50 MiB"),
        (GIB, BYTES, "1.00 GiB"),
        (18.2 * GIB, BYTES, "18.2 GiB"),
        (201.7e9, RATE, "202 GFLOP/s"),
        (7.9e14, RATE, "790 TFLOP/s"),
        (0.311, SHARE, "31.1 %"),
        (304_293_888, COUNT, "304 million"),
        (7, COUNT, "7.00"),
    ],
)
def test_three_digits_and_a_unit(value: float | None, units: tuple[written.Unit, ...], expected: str) -> None:
    assert written.quantity(value, units) == expected


def test_a_spread_has_one_unit() -> None:
    assert written.spread(0.9, 1.1, SECONDS) == "0.900–1.10 s"
    assert written.spread(None, 1.1, SECONDS) == "–"
    assert written.enumerated(["a", "b", "c"]) == "a, b and c"
    assert [written.enumerated(words) for words in (["a"], [])] == ["a", ""]


@pytest.mark.parametrize("most", [1e-5, 0.0431, 0.999, 1.0, 7.3, 89.9, 12345.6])
@pytest.mark.parametrize("about", [2, 3, 4, 6])
def test_ticks_are_round_few_and_within(most: float, about: int) -> None:
    scale = Scale.of([None, most / 3, most], SECONDS)
    ticks = scale.ticks(about)
    assert ticks[0] == (0, "0")
    assert 2 <= len(ticks) <= about + 1
    assert all(0 <= scale.place(value) <= 100 for value, _ in ticks)
    assert ticks[-1][0] <= most * (1 + 1e-9)
    steps = {round((later - earlier) / most, 9) for (earlier, _), (later, _) in pairwise(ticks)}
    assert len(steps) == 1
    unit = ticks[-1][1].split()[1]
    for value, name in ticks:  # what is written is what is meant
        assert float(name.replace(",", "").split()[0]) * {"s": 1, "ms": 1e-3}[unit] == pytest.approx(value)
    assert all(" " not in name for _, name in ticks[:-1])


def test_a_scale_of_nothing_is_one() -> None:
    for values in ([], [None], [0.0], [-3.0], [1e-320]):
        scale = Scale.of(values, SECONDS)
        assert scale.place(0.0) == 0
        assert scale.ticks(3)


def test_places_are_within_the_picture() -> None:
    scale = Scale.of([2.0], SECONDS)
    assert [scale.place(value) for value in (-1, 0, 1, 2, 3)] == [0, 0, 50, 100, 100]


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    parts = (int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def themes() -> dict[str, dict[str, str]]:
    light, dark = (
        dict(re.findall(r"--([\w]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", STYLE, re.S)
    )
    assert light.keys() == dark.keys()
    return {"light": light, "dark": dark}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everything_stands_out_from_what_it_is_on(theme: str) -> None:
    """WCAG 2.2: 4.5 for text, 3 for what is drawn."""
    found = themes()[theme]
    for name in ("text", "quiet", "wrong"):
        for ground in ("card", "page"):
            assert contrast(found[name], found[ground]) >= 4.5, (name, ground)
    hues = [f"c{index}" for index in range(1, OURS + 1)] + [f"t{index}" for index in range(1, THEIRS + 1)]
    for name in hues:
        assert contrast(found[name], found["card"]) >= 3, name
    for name in ("c1", "c2", "c3", "c4", "c5"):  # stages have their names in them
        assert contrast(found[name], found["card"]) >= 4.5, name


def seen(colour: str, deficiency: str) -> tuple[float, ...]:
    """As who lacks a cone sees it: Viénot, Brettel and Mollon 1999, on linear RGB; back as CIE lightness and b-y."""
    linear = [((int(colour[i : i + 2], 16) / 255 + 0.055) / 1.055) ** 2.4 for i in (1, 3, 5)]
    mixed = {"protan": (0.1124, 0.8876), "deutan": (0.2928, 0.7072)}[deficiency]
    yellow = mixed[0] * linear[0] + mixed[1] * linear[1]
    return (116 * yellow ** (1 / 3), 100 * (linear[2] ** (1 / 3) - yellow ** (1 / 3)))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("deficiency", ["protan", "deutan"])
def test_the_first_colours_are_told_apart_without_red_or_green(theme: str, deficiency: str) -> None:
    found = themes()[theme]
    shown = [seen(found[f"c{index}"], deficiency) for index in (1, 2, 3)]
    for index, one in enumerate(shown):
        for other in shown[index + 1 :]:
            assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5 > 10


def test_colours_go_by_the_label_in_every_component() -> None:
    def component(*labels: str) -> dict[str, object]:
        return {"contenders": [{"label": label, "ours": not label.startswith("torch")} for label in labels]}

    many = [f"backend {index}" for index in range(OURS + 1)]
    results = {"components": {"a": component("torch fp32", "x"), "b": component("y", "torch bf16", "x", *many)}}
    found = colours(results)
    assert [found[label] for label in ("x", "y", "torch fp32", "torch bf16")] == ["c1", "c2", "t1", "t2"]
    assert found["backend 7"] == "c3"  # they have run out, and begin again


def test_a_stage_within_another_comes_into_a_row_of_its_own() -> None:
    def stage(name: str, start: float, end: float, thread: str = "main") -> Stage:
        return Stage(name, start, end - start, thread)

    shown = [stage("request", 0, 9), stage("load", 1, 3), stage("ahead", 2, 5, "other"), stage("run", 3, 4)]
    rows = {thread: [[one.name for one in row] for row in lane] for thread, lane in threads(shown).items()}
    assert rows == {"main": [["request"], ["load", "run"]], "other": [["ahead"]]}


def test_stages_go_by_their_first_word_and_come_by_start() -> None:
    entries = [
        {"name": "sam", "start": 3.0, "duration": 1.0, "thread": "main"},
        {"name": "load sam", "start": 1.0, "duration": -1.0, "thread": "main"},
        {"name": "wait for sam", "start": 2.0, "duration": 1.0, "thread": "main"},
        {"name": "preprocess high", "start": 0.0, "duration": 1.0},
        {"name": "answer", "start": 4.0, "duration": 1.0},
        {"name": "when?", "start": None, "duration": 1.0},
    ]
    found = stages({"stages": entries})
    assert [(stage.kind, stage.duration) for stage in found] == [
        ("preprocess", 1),
        ("load", 0),
        ("wait", 1),
        ("run", 1),
        ("answer", 1),
    ]


def test_markup_escapes_what_is_not_markup() -> None:
    assert tag("p", "<b>", [Markup("<i/>"), None, "&"], class_='"', stroke_width=1.5) == (
        '<p class="&quot;" stroke-width="1.5">&lt;b&gt;<i/>&amp;</p>'
    )
    assert tag("rect", x=0.30000001, y=None) == '<rect x="0.3"/>'
